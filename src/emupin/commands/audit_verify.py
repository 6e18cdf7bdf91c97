"""`emupin audit verify` and `head`: prove that the trail is what was written, and what to keep for that elsewhere."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.files import AUDIT, root_from_environment
from emupin.commands import options
from emupin.screen import terminal
from emupin.trail import chain, lines
from emupin.trail.findings import Head
from emupin.trail.sources import in_order, one_trail
from emupin.trail.writer import read_head

if TYPE_CHECKING:
    import argparse

    from emupin.trail.findings import Finding, Verdict

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

TRIES = 3
"""How often to look at a trail that is rotated meanwhile."""

FILES_HELP = f"files of one trail, in any order (default: {AUDIT} and what was rotated)"

HASH, COUNT, TIME = "[0-9a-f]{64}", "[0-9]{1,18}", r"-|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[-+]\d\d:\d\d)"
"""The words of `audit head`."""


def add_parsers(actions: Subparsers) -> None:
    _add_verify(actions)
    header = actions.add_parser(
        "head",
        help="print the last entry's hash, the number of entries and the time, to store elsewhere as a checkpoint",
        epilog="status: 0; 1 the chain is broken; 2 it cannot be read, or has no entry.",
    )
    header.set_defaults(run=head)
    header.add_argument("files", metavar="FILE", nargs="*", help=FILES_HELP)


def _add_verify(actions: Subparsers) -> None:
    parser = actions.add_parser(
        "verify",
        help="verify that no entry was changed, removed, inserted or moved",
        epilog="status: 0 the trail is intact; 1 it is not; 2 it cannot be read.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--head",
        metavar=("HASH", "COUNT TIME"),
        nargs="+",
        action="append",
        default=[],
        help="what `audit head` printed once: the hash alone proves the end, with the count also the start; repeatable",
    )
    options.add_json(parser)
    parser.add_argument("files", metavar="FILE", nargs="*", help=FILES_HELP)
    parser.set_defaults(run=verify)


def verify(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the trail cannot be read."""
    heads, files = [], list(args.files)
    for words in args.head:
        head, rest = _head(" ".join(words).split())
        heads.append(head)
        files = [*rest, *files]
    verdict, pending = _verdict(files, heads)
    findings = [*verdict.findings, *pending]
    _put_verdict(verdict, findings, args.json)
    return 0 if all(finding.is_remark for finding in findings) else 1


def _head(words: list[str]) -> tuple[Head, list[str]]:
    """An exported head, and the words behind it, which are files. Raises EmupinError where it is none."""
    digest, *rest = words or [""]
    if not re.fullmatch(HASH, digest):
        hint = "give what `emupin audit head` printed: 64 digits, and the count behind them"
        raise EmupinError(f"--head {digest}", "is not a hash", hint)
    count = int(rest.pop(0)) if rest and re.fullmatch(COUNT, rest[0]) else None
    if count is not None and rest and re.fullmatch(TIME, rest[0]):
        del rest[0]
    return Head(digest, count), rest


def _verdict(files: list[str], heads: list[Head]) -> tuple[Verdict, list[Finding]]:
    """A trail that was rotated while it was read is read again. Raises EmupinError where it cannot be."""
    if files:
        return chain.verify(in_order(files), None, heads), []
    root = root_from_environment()
    for last_try in [False] * (TRIES - 1) + [True]:
        kept, identity = read_head(root), _identity(root)
        expected = kept or heads or chain.pending(root)
        paths = lines.find(root) if expected else lines.installed(root)
        try:
            verdict = chain.verify(in_order(paths), kept, heads)
        except EmupinError:
            if last_try or _identity(root) == identity:
                raise
            continue
        if verdict.is_sound or _identity(root) == identity:
            break
    return verdict, chain.pending(root)


def _identity(root: str) -> list[tuple[str, int | None]]:
    """Changes when the trail is rotated."""
    return [(path, lines.identity(path)) for path in lines.find(root)]


def _put_verdict(verdict: Verdict, findings: list[Finding], as_json: bool) -> None:
    sound = all(finding.is_remark for finding in findings)
    if as_json:
        plain = [
            {"place": each.place, "kind": each.kind, "text": each.text, "remark": each.is_remark} for each in findings
        ]
        whole = {"whole": sound, "entries": verdict.entries, "head": verdict.head, "findings": plain}
        terminal.put(json.dumps(whole) + "\n", False)
        return
    for finding in findings:
        if finding.is_remark:
            streams.say(str(finding))
        else:
            terminal.put(f"{finding}\n", False)
    number = f"{verdict.entries} {'entry' if verdict.entries == 1 else 'entries'}"
    count = sum(not finding.is_remark for finding in findings)
    terminal.put(f"{number}: {'the chain is intact' if sound else f'findings: {count}'}\n", False)


def head(args: argparse.Namespace) -> int:
    """Print hash, number of entries, time; the exit status. Raises EmupinError where there is no entry."""
    trail = one_trail(args.files, root_from_environment())
    count, last = 0, None
    for line, entry in trail.entries(_refuse):
        if entry is not None:
            count, last = count + 1, (line.digest, lines.text_of(entry, "time") or "-")
    if last is None:
        raise EmupinError(trail.files[-1], "has no entry", "there is nothing to store yet")
    terminal.put(f"{last[0]} {count} {last[1]}\n", False)
    if trail.verdict.is_sound:
        return 0
    streams.say("the chain is broken; `emupin audit verify` says where")
    return 1


def _refuse(error: EmupinError) -> NoReturn:
    raise error
