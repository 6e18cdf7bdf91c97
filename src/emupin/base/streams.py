"""The standard streams: data to stdout as bytes, remarks to stderr, both made safe where a terminal shows them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from emupin.base.errors import EmupinError
from emupin.base.files import write_all
from emupin.base.text import printable, printable_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

STDIN, STDOUT, STDERR = 0, 1, 2


def put(data: bytes) -> None:
    """Write `data` to stdout. Raises BrokenPipeError where its reader is gone, EmupinError for other trouble."""
    with trouble():
        write_all(STDOUT, printable_lines(data) if os.isatty(STDOUT) else data)


@contextmanager
def stdout() -> Iterator[IO[bytes]]:
    """stdout for what comes in pieces. Raises as `put` does, also for an OSError of whoever makes the pieces."""
    with trouble(), open(STDOUT, "wb", closefd=False) as file:
        yield file


def flush() -> None:
    """Write what `print` still holds. Raises as `put` does."""
    if sys.stdout is not None:
        with trouble():
            sys.stdout.flush()


@contextmanager
def trouble() -> Iterator[None]:
    """An OSError in here is stdout's; what Python holds for it then is lost. Raises as `put` does."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise EmupinError("stdout", f"cannot be written: {error.strerror}", "the output is incomplete") from None


def say(text: str) -> None:
    """Write a remark of one line to stderr; where that is closed, nowhere: `print` would take stdout instead."""
    if sys.stderr is not None:
        print(printable(text), file=sys.stderr)


def occupy_closed() -> None:
    """Where the caller closed a standard stream, the next file opened would take its number and be written to.

    They are opened the wrong way round, so that using one is still an error.
    """
    for number, mode in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)


def abandon_stdout() -> None:
    """Let what Python still holds for a stdout that nobody reads go nowhere, without a message at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
