"""`emupin audit`: read the audit trail, and prove that it is what was written."""

from __future__ import annotations

import json
import re
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.files import STATE, root_from_environment
from emupin.commands import audit_replay, audit_report, audit_verify, options
from emupin.screen import entrytext, terminal
from emupin.trail import context
from emupin.trail.query import Query, time_asked
from emupin.trail.sources import one_trail

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from emupin.trail.lines import Line
    from emupin.trail.sources import Trail

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
    Found = tuple[Line, dict[str, Any]]

WIDE = 200
"""Columns where there is no terminal: nothing of a usual entry is cut off."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("audit", help="read the audit trail, verify its integrity")
    actions = options.add_choices(parser, "ACTION")
    _add_list(actions)
    _add_show(actions)
    audit_verify.add_parsers(actions)
    audit_replay.add_parser(actions)
    audit_report.add_parser(actions)


def _add_list(actions: Subparsers) -> None:
    parser = actions.add_parser(
        "list", help="list entries, one per line", epilog="status: 0; 2 after an error.", allow_abbrev=False
    )
    parser.add_argument("--guest", metavar="NAME|UUID", help="only entries of this guest; the options below work alike")
    for key in ("rule", "outcome", "op"):
        parser.add_argument(f"--{key}")
    for edge in ("since", "until"):
        parser.add_argument(
            f"--{edge}", metavar="TIME", help="RFC 3339 (UTC without an offset), or 2h, 7d: that long ago"
        )
    options.add_json(parser)
    parser.add_argument("files", metavar="FILE", nargs="*", help=audit_verify.FILES_HELP)
    parser.set_defaults(run=list_entries)


def _add_show(actions: Subparsers) -> None:
    parser = actions.add_parser(
        "show",
        help="show an entry in full, with the policy and the CPUs behind the decision",
        epilog="status: 0; 2 after an error, or where there is no such entry.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "entry", metavar="N|HASH", nargs="?", help="the Nth from the end, or the first digits of a hash"
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help=audit_verify.FILES_HELP)
    parser.add_argument("--guest", metavar="NAME|UUID", help="all entries of this guest")
    parser.add_argument("--last", action="store_true", help="only the latest one")
    options.add_json(parser)
    parser.set_defaults(run=show)


# -- list, show -------------------------------------------------------------------------------------------------------


def list_entries(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the trail cannot be read."""
    now = datetime.now(timezone.utc)
    times = [time_asked(getattr(args, edge), f"--{edge}", now) for edge in ("since", "until")]
    query = Query(args.guest, args.rule, args.outcome, args.op, *times)
    width, colour = terminal.width(WIDE), terminal.wants_colour()
    for line, entry in _entries(one_trail(args.files, root_from_environment())):
        if query.takes(entry):
            text = json.dumps(_plain(line, entry)) if args.json else entrytext.row(line, entry, width, colour)
            terminal.put(text + "\n", colour)
    return 0


def show(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where there is no such entry."""
    if args.entry is None and args.guest is None and not args.last:
        raise EmupinError(
            "emupin audit show", "which entry?", "give its hash, its number counted from the end, --guest or --last"
        )
    word: str | None = args.entry
    if word and not re.fullmatch(r"\d{1,6}|[0-9A-Fa-f]{4,64}", word):
        word, args.files = None, [word, *args.files]
    root = root_from_environment()
    trail = one_trail(args.files, root)
    found = _chosen(trail, word, args)
    archive = trail.archive([root + STATE])
    width, colour = terminal.width(WIDE), terminal.wants_colour()
    for number, (line, entry) in enumerate(found):
        about = context.find(entry, archive)
        if args.json:
            policy = about.policy.text if about.policy else None
            terminal.put(json.dumps({**_plain(line, entry), "policy_text": policy}) + "\n", False)
        else:
            terminal.put("\n" * bool(number) + entrytext.render(line, entry, about, width, colour), colour)
    return 0


def _chosen(trail: Trail, word: str | None, args: argparse.Namespace) -> list[Found]:
    """What `show` is asked for. Raises EmupinError where that is nothing."""
    nth = int(word) if word and re.fullmatch(r"\d{1,6}", word) else None
    start = word.lower() if word and nth is None else ""
    asked = (each for each in _entries(trail) if Query(args.guest).takes(each[1]))
    if start:
        asked = (each for each in asked if each[0].digest.startswith(start))
    found = list(deque(asked, 1 if args.last and nth is None else nth))  # A trail may not fit into memory.
    if not found or len(found) < (nth or 0):
        raise EmupinError("the audit trail", "has no matching entry", "`emupin audit list` shows the entries")
    return found if nth is None else found[:1]


def _plain(line: Line, entry: dict[str, Any]) -> dict[str, Any]:
    place = {"hash": line.digest, "file": line.file, "line": line.number}
    return {**place, **entry, **place}


def _entries(trail: Trail) -> Iterator[Found]:
    """Every entry of the proven chain; a remark on the lines left out. Raises EmupinError."""
    left_out = 0
    for line, entry in trail.entries(_refuse):
        if entry is None:
            left_out += 1
        else:
            yield line, entry
    if left_out:
        streams.say(f"lines outside the verified chain, not shown: {left_out}; `emupin audit verify` says where")


def _refuse(error: EmupinError) -> NoReturn:
    raise error
