"""`emupin apply --undo`: put back what stood in libvirt's definitions before emupin recorded its pins."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.text import printable
from emupin.live import undoing
from emupin.live.undoing import Means
from emupin.node import libvirtd

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from emupin.live.undoing import Undone

    Cpus = frozenset[int]

SECONDS = 10.0
"""For libvirtd to answer, and a guest to be free: somebody waits at a terminal."""


def run(root: str, names: Sequence[str], args: argparse.Namespace) -> int:
    """The exit status: 0, 1 where something would change, 2 after an error."""
    means = Means(os.sched_setaffinity, _put_back) if args.yes else None
    results = list(undoing.undo(root, names, means))
    if args.json:
        streams.put((json.dumps([_plain(each) for each in results]) + "\n").encode())
    else:
        streams.put("".join(f"{line}\n" for each in results for line in _lines(each, args.yes)).encode())
        if not any(each.changes or each.error for each in results):
            streams.say("nothing to take back")
        elif not args.yes:
            streams.say("nothing was changed; add --yes to make the changes")
    for each in results:
        if each.error:
            streams.say(f"{each.name}: {each.error}")
    if any(each.error for each in results):
        return 2
    return int(not args.yes and any(each.changes for each in results))


def _put_back(uuid: str, kind: str, pins: Mapping[str, Cpus | None]) -> None:
    libvirtd.put_back(uuid, kind, pins, SECONDS)


def _lines(result: Undone, done: bool) -> Iterator[str]:
    if not result.changes:
        return
    yield f"{printable(result.name)}: {'put back' if done and not result.error else 'to put back'}"
    for where, pins in result.changes.items():
        for key, (before, ours) in pins.items():
            element = "<emulatorpin>" if key == "emulator" else f"<iothreadpin> of iothread{key}"
            yield f"  {where}: {element} {ours} -> {before or 'none'}"


def _plain(result: Undone) -> dict[str, object]:
    changes = [
        {"where": where, "thread": key, "before": ours, "after": before}
        for where, pins in result.changes.items()
        for key, (before, ours) in pins.items()
    ]
    return {"name": result.name, "changes": changes, "error": result.error or None}
