"""`emupin audit replay`: make recorded decisions again, and show those that come out otherwise."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from emupin import __version__
from emupin.base import streams
from emupin.base.files import root_from_environment
from emupin.base.text import printable
from emupin.commands import options
from emupin.screen.terminal import BOLD, GREEN, RED, paint, put, wants_colour
from emupin.trail.replay import DIFFERENT, NO_DECISION, NOT_REPLAYABLE, SAME, Replayed, replay
from emupin.trail.sources import find_trails

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.base.errors import EmupinError
    from emupin.trail.lines import Line
    from emupin.trail.replay import Difference

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EPILOG = """\
Each decision is re-evaluated from the facts in its entry. The policy and the topology come from the copies saved by
digest: beside the trail, in /var/lib/emupin of the same host, or in a folder given with --state. Entries without a
decision (records, gaps, failures before a decision) are counted and skipped.

status: 0 every decision holds; 1 some differ, cannot be re-evaluated, or are outside the verified chain; 2 after an
error.
"""


def add_parser(actions: Subparsers) -> None:
    parser = actions.add_parser(
        "replay",
        help="re-evaluate recorded decisions, and compare",
        description="Re-evaluate each decision from the recorded facts alone, and compare.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="trails, or folders with the trails of many hosts")
    parser.add_argument(
        "--state", action="append", default=[], metavar="FOLDER", help="has policies/ and topologies/ (repeatable)"
    )


class _Tally:
    """What came of all entries."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.unreadable = 0
        self.unproven = 0
        self.damaged: list[EmupinError] = []

    @property
    def status(self) -> int:
        if self.damaged:
            return 2
        return int(self.counts[DIFFERENT] + self.counts[NOT_REPLAYABLE] + self.unproven > 0)

    def sentence(self) -> str:
        parts = [f"{self.counts[SAME]:,} unchanged", f"{self.counts[DIFFERENT]:,} differently"]
        parts += [f"{self.counts[NOT_REPLAYABLE]:,} not replayable", f"{self.counts[NO_DECISION]:,} without a decision"]
        total = sum(self.counts.values())
        return f"{total:,} {'entry' if total == 1 else 'entries'}: {', '.join(parts)}"


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError."""
    tally = _Tally()
    others = _others(args, tally)
    if args.json:
        _put_json(list(others), tally)
    else:
        colour = wants_colour()
        for line, entry, replayed in others:
            put("".join(f"{text}\n" for text in _lines(line, entry, replayed, colour)), colour)
        put(f"{tally.sentence()}\n", False)
    for error in tally.damaged:
        streams.say(str(error))
    if tally.unreadable:
        noun = "line is no entry" if tally.unreadable == 1 else "lines are no entries"
        streams.say(f"{tally.unreadable:,} {noun}: `emupin audit verify` explains")
    if tally.unproven:
        noun = "entry is" if tally.unproven == 1 else "entries are"
        streams.say(f"{tally.unproven:,} {noun} outside the verified chain: `emupin audit verify` explains")
    return tally.status


def _others(args: argparse.Namespace, tally: _Tally) -> Iterator[tuple[Line, dict[str, Any], Replayed]]:
    """The entries that did not come out the same; all are counted. Raises EmupinError."""
    for trail in find_trails(args.files, root_from_environment()):
        archive = trail.archive(args.state)
        for line, entry, is_proven in trail.everything(tally.damaged.append):
            if entry is None:
                tally.unreadable += 1
                continue
            tally.unproven += not is_proven
            replayed = replay(entry, archive)
            tally.counts[replayed.status] += 1
            if replayed.status in (DIFFERENT, NOT_REPLAYABLE):
                yield line, entry, replayed


def _lines(line: Line, entry: dict[str, Any], replayed: Replayed, colour: bool) -> Iterator[str]:
    head = " ".join(_text(entry.get(key)) for key in ("time", "host", "name", "op"))
    yield paint(f"{line.place}: {head}", BOLD, colour)
    if replayed.status == NOT_REPLAYABLE:
        yield f"  not replayable: {printable(replayed.why)}"
        return
    yield f"  decided by emupin {_text(entry.get('emupin'))}, differs with {__version__}"
    for difference in replayed.differences:
        yield paint(f"  - {difference.field}: {_text(difference.recorded)}", RED, colour)
        yield paint(f"  + {difference.field}: {_text(difference.now)}", GREEN, colour)


def _text(value: Any) -> str:
    """A value of an entry, which may be anything, on one line."""
    if isinstance(value, list):
        return "; ".join(map(_text, value)) or "none"
    return "none" if value is None else printable(str(value))


def _put_json(others: list[tuple[Line, dict[str, Any], Replayed]], tally: _Tally) -> None:
    form = {
        "counts": {status: tally.counts[status] for status in (SAME, DIFFERENT, NOT_REPLAYABLE, NO_DECISION)},
        "emupin": __version__,
        "entries": [_form(line, entry, replayed) for line, entry, replayed in others],
    }
    streams.put(json.dumps(form, indent=2).encode() + b"\n")


def _form(line: Line, entry: dict[str, Any], replayed: Replayed) -> dict[str, Any]:
    return {
        "place": line.place,
        **{key: entry.get(key) for key in ("time", "host", "op", "uuid", "name", "emupin")},
        "status": replayed.status,
        "why": replayed.why or None,
        "differences": [_difference(each) for each in replayed.differences],
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {"field": each.field, "recorded": each.recorded, "now": each.now}
