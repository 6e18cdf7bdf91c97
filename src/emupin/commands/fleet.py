"""`emupin fleet`: many nodes, as `emupin collect` found them, in one table; and what a new policy would change."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from contextlib import closing
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.interruption import Interruption
from emupin.base.text import printable
from emupin.commands import options
from emupin.fleet import batches, nodes, parallel
from emupin.screen import terminal
from emupin.screen.table import table
from emupin.screen.terminal import RED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.fleet.nodes import Node, Trials

EPILOG = """\
FOLDER has a folder for each node, with what `emupin collect` wrote on it; deploy/ansible/fleet.yml fills one. A line
for each node: its guests, how many of them drifted, how many have no placement that fits, doctor's problems and
warnings, the version, the build (nodes with the same one run the same code) and the policy in force.

With --policy each node's guests are decided as well, with the new policy and with the one in force there (or the one
that --against names), on the CPUs that were collected: `changed` counts the guests that would fare differently,
`unplaced` those left without a placement. --guests prints a line for each of these guests first.

status: 0; 1 if some node needs attention; 2 after an error.
"""

HEADINGS = ("node", "guests", "drift", "failed", "problems", "warnings", "version", "build", "policy")
FIGURES = ("guests", "drift", "failed", "problems", "warnings", "changed", "unplaced")
TRIED = ("changed", "unplaced")
SHOWN = 12
"""Digits of a policy's digest."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "fleet",
        help="show many nodes in one table, and what a new policy would change there",
        description="Show many nodes in one table, and what a new policy would change there.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", help="a folder with the folders of collected nodes")
    parser.add_argument("--policy", metavar="FILE", help="try this policy on all guests")
    parser.add_argument("--against", metavar="OLD", help="with --policy: compare with this policy everywhere")
    parser.add_argument("--guests", action="store_true", help="with --policy: one line per guest whose outcome differs")
    parser.add_argument("--attention", action="store_true", help="show only the nodes that need attention")
    parser.add_argument("--jobs", type=options.count, metavar="N", help="processes (default: one for each CPU)")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where there is nothing to read, or a policy cannot be."""
    trials = None
    if (args.against or args.guests) and not args.policy:
        option = "--against" if args.against else "--guests"
        raise EmupinError("emupin fleet", f"{option} without --policy", "name the policy to try: --policy FILE")
    if args.policy:
        old = options.read_policy(args.against) if args.against else None
        trials = nodes.Trials(options.read_policy(args.policy), old)
    folders, found, progress = nodes.find(args.folder), [], batches.Progress()
    for node, lines in _look(folders, trials, args.jobs or batches.cores()):
        found.append(node)
        progress.clear()
        if args.guests and lines:
            streams.put(lines)
        if args.json:
            streams.put((json.dumps(dataclasses.asdict(node)) + "\n").encode())
        progress.show(f"{len(found):,} of {len(folders):,} nodes")
    progress.clear()
    if not args.json:
        _show([node for node in found if node.needs_attention or not args.attention], found, trials is not None)
    for node in found:
        for trouble in node.troubles:
            streams.say(f"{node.name}: {trouble}")
    return int(any(node.needs_attention for node in found))


def _look(folders: list[str], trials: Trials | None, jobs: int) -> Iterator[tuple[Node, bytes]]:
    """Each node, and the lines of its guests, in the order of `folders`. Raises InterruptedBySignal."""

    def work(folder: str) -> tuple[Node, bytes]:
        interruption.check()
        node = nodes.read(folder)
        is_there = os.path.exists(f"{folder}/{nodes.NODE}")
        return node, trials.run(node, folder) if trials and is_there else b""

    with Interruption() as interruption, closing(parallel.in_order(work, folders, jobs)) as results:
        for result in results:
            yield result
            interruption.check()


def _show(shown: list[Node], found: list[Node], tried: bool) -> None:
    columns = (*HEADINGS[:6], *(TRIED if tried else ()), *HEADINGS[6:])
    rows = [(RED if node.needs_attention else "", [_cell(node, column) for column in columns]) for node in shown]
    colour = terminal.wants_colour()
    lines = table(columns, [column in FIGURES for column in columns], rows, terminal.size().columns, colour)
    terminal.put("".join(f"{line}\n" for line in [*lines, *_summary(found, tried)]), colour)


def _cell(node: Node, column: str) -> str:
    if column == "node":
        return printable(node.name)
    if not node.version:
        return "not collected" if column == "version" else "-"
    value = getattr(node, column)
    if column == "policy":
        return printable(value[:SHOWN]) if value else "none"
    return "-" if value is None else f"{value:,}" if column in FIGURES else printable(value)


def _summary(found: list[Node], tried: bool) -> Iterator[str]:
    figures = ", ".join(f"{key} {nodes.total(found, key):,}" for key in ("drift", "failed", *(TRIED if tried else ())))
    attention = f"nodes that need attention: {sum(node.needs_attention for node in found):,}"
    yield ""
    yield f"{len(found):,} nodes, {nodes.total(found, 'guests'):,} guests: {figures}; {attention}"
    for key, title in (("version", "versions"), ("build", "builds"), ("policy", "policies")):
        values = [f"{(value or 'none')[:SHOWN]} on {count:,}" for value, count in nodes.counts(found, key).items()]
        yield f"{title}: {', '.join(map(printable, values)) or 'none'}"
