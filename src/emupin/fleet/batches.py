"""Many documents: found as they are needed, done in batches, spread over processes, with progress."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from functools import partial
from itertools import islice

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.interruption import Interruption
from emupin.fleet import parallel, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from emupin.fleet.batch import Batch

    AnyBatch = TypeVar("AnyBatch", bound=Batch)

BATCH = 16
"""Files that a worker takes at a time: enough to make the exchange between processes cheap."""


def through(
    kind: type[AnyBatch],
    document: Callable[[str, AnyBatch], bytes],
    arguments: Iterable[str],
    jobs: int,
    report: Callable[[EmupinError], None],
) -> Iterator[AnyBatch]:
    """What `document` makes of the files that `arguments` stand for, in their order, batch by batch of a `kind`.

    A folder that cannot be read goes to `report`. Raises InterruptedBySignal where a signal comes.
    """
    with Interruption() as interruption:
        batches = _batches(walk.files(arguments, report))
        with closing(parallel.in_order(partial(_batch, kind, document, interruption), batches, jobs)) as results:
            try:
                for result in results:
                    yield result
                    interruption.check()
            except EmupinError:
                interruption.check()  # A worker that the signal ended is no trouble of its own.
                raise


def _batches(files: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(files, BATCH)):
        yield batch


def _batch(
    kind: type[AnyBatch],
    document: Callable[[str, AnyBatch], bytes],
    interruption: Interruption,
    paths: Iterable[str],
) -> AnyBatch:
    batch = kind()
    for path in paths:
        interruption.check()
        batch.add(path, document)
    return batch


def cores() -> int:
    """The CPUs that this process may use, not those of the machine."""
    return len(os.sched_getaffinity(0))


class Progress:
    """One line on stderr, only where that is a terminal."""

    def __init__(self) -> None:
        self.visible = os.isatty(streams.STDERR)

    def show(self, text: str) -> None:
        self._write(f"{text} …")

    def clear(self) -> None:
        self._write("\r\x1b[K")

    def end(self, text: str) -> None:
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        if self.visible:
            sys.stderr.write(text)
            sys.stderr.flush()
