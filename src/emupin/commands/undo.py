"""`emupin apply --undo`: put back what stood in libvirt's definitions before emupin recorded its pins."""

from __future__ import annotations

import functools
import json
import os
import time
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.text import printable
from emupin.guest.domain import element
from emupin.live import undoing
from emupin.live.undoing import Means
from emupin.node import libvirtd

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from emupin.live.undoing import Undone, Wanted

SECONDS = 10.0
"""For libvirtd to answer, and a guest to be free: somebody waits at a terminal."""


def run(root: str, names: Sequence[str], args: argparse.Namespace) -> int:
    """The exit status: 0, 1 where something would change, 2 after an error."""
    patience: dict[str, float] = {}
    means = Means(os.sched_setaffinity, functools.partial(_put_back, patience)) if args.yes else None
    results: dict[str, list[Undone]] = {name: [] for name in names}
    for result in undoing.undo(root, names, means):
        results[result.name].append(result)
    found = [each for of_guest in results.values() for each in of_guest]
    if args.json:
        streams.put((json.dumps([_plain(*each) for each in results.items()]) + "\n").encode())
    else:
        lines = (f"{line}\n" for each in results.items() for line in _lines(*each, args.yes))
        streams.put("".join(lines).encode())
        for remark in _remarks(results, args.yes):
            streams.say(remark)
    for each in found:
        if each.error:
            streams.say(f"{each.name}: {each.where}: {each.error}")
    if any(each.error for each in found):
        return 2
    return int(not args.yes and any(each.changes for each in found))


def _put_back(patience: dict[str, float], uuid: str, kind: str, pins: Wanted) -> None:
    """Both definitions of a guest share its SECONDS."""
    deadline = patience.setdefault(uuid, time.monotonic() + SECONDS)
    libvirtd.put_back(uuid, kind, pins, max(0.0, deadline - time.monotonic()))


def _lines(name: str, results: Sequence[Undone], applied: bool) -> Iterator[str]:
    wanted = [each for each in results if each.changes]
    if not wanted:
        return
    done = sum(each.done for each in wanted)
    state = "to put back" if not applied else "put back" if done == len(wanted) else "put back in part"
    yield f"{printable(name)}: {state if done or not applied else 'not put back'}"
    for each in wanted:
        missed = ": failed" if applied and not each.done else ""
        for key, (before, ours) in each.changes.items():
            yield f"  {each.where}: {element(key)} {ours or 'none'} -> {before or 'none'}{missed}"


def _remarks(results: Mapping[str, Sequence[Undone]], applied: bool) -> Iterator[str]:
    found = [each for of_guest in results.values() for each in of_guest]
    if not found:
        yield "nothing to take back"
    elif not applied and any(each.changes for each in found):
        yield "nothing was changed; add --yes to make the changes"
    for name, of_guest in results.items():
        yield from (f"{name}: {warning}" for warning in _warnings(of_guest))


def _warnings(results: Sequence[Undone]) -> list[str]:
    """Of pins that may come again, though they are put back."""
    saved = next((each.saved for each in results if each.saved), "")
    what = f"libvirt keeps {saved} of it, from which emupin's pins may come again"
    cure = "run `emupin apply --undo` again then, or use `virsh managedsave-edit` and `virsh snapshot-edit` now"
    return [f"{what}: {cure}"] if saved else []


def _plain(name: str, results: Sequence[Undone]) -> dict[str, object]:
    changes = [
        {
            "where": each.where,
            "thread": key,
            "before": ours,
            "after": before,
            "done": each.done,
        }
        for each in results
        for key, (before, ours) in each.changes.items()
    ]
    errors = [f"{each.where}: {each.error}" for each in results if each.error]
    return {
        "name": name,
        "changes": changes,
        "warnings": _warnings(results),
        "error": "; ".join(errors) or None,
    }
