"""`emupin audit report`: the audit trails of one or many hosts as one HTML page that needs no network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from emupin.base import output, streams
from emupin.base.errors import EmupinError
from emupin.base.files import root_from_environment
from emupin.commands import options
from emupin.commands.audit_replay import add_sources
from emupin.report.page import Page, Source, check_jinja, write
from emupin.report.row import row
from emupin.report.traces import pictures
from emupin.trace import saved
from emupin.trail import entries
from emupin.trail.replay import replay
from emupin.trail.sources import find_trails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emupin.trail.sources import Trail

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EPILOG = """\
The page is self-contained and loads nothing. It shows the guests' names, UUIDs and CPUs, and the policies: protect it
as you protect the trail.

status: 0; 2 after an error, or where a part of a trail could not be read.
"""


def add_parser(actions: Subparsers) -> None:
    parser = actions.add_parser(
        "report",
        help="one HTML page of all decisions, with filters and pictures",
        description="One self-contained HTML page of all decisions.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    add_sources(parser)
    parser.add_argument(
        "--trace",
        action="append",
        default=[],
        metavar="FILE",
        help="show a saved `emupin trace`, too (repeatable: before, after)",
    )
    parser.add_argument(
        "-o", "--output", default="report.html", metavar="FILE", help=f"{output.HELP}; default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError."""
    check_jinja()
    traces = [saved.read(path) for path in args.trace]
    page = make(find_trails(args.files, root_from_environment()), args.state)
    page.traces = pictures(traces)
    write(page, args.output)
    count, hosts = len(page.islands), len(page.sources)
    where = "stdout" if output.is_stdout(args.output) else args.output
    streams.say(f"{where}: {count:,} entries of {hosts:,} host{'' if hosts == 1 else 's'}")
    for problem in page.problems:
        streams.say(problem)
    return 2 if page.problems else 0


def make(trails: Sequence[Trail], state: Sequence[str]) -> Page:
    """The page of `trails`; what cannot be read is a problem that the page shows."""
    page = Page(
        "emupin: audit report", "Where emulator threads were placed, why, and by which policy.", "host", entries.now()
    )
    names: set[str] = set()
    for trail in trails:
        try:
            name = trail.host()
            source = Source(name if name not in names else f"{name} ({trail.files[0]})")
            names.add(source.name)
            page.sources.append(source)
            _prove(source, trail)
            _add(page, source, trail, state)
        except EmupinError as error:
            page.problems.append(str(error))
    return page


def _prove(source: Source, trail: Trail) -> None:
    """Note whether the chain of `trail` is whole. Raises HostError."""
    verdict = trail.verdict
    source.chain_is_whole = verdict.is_sound
    source.chain = "whole" if verdict.is_sound else "not whole"
    source.findings = tuple(str(finding) for finding in verdict.findings)


def _add(page: Page, source: Source, trail: Trail, state: Sequence[str]) -> None:
    """Add the entries of `trail`. Raises HostError."""

    def report(error: EmupinError) -> None:
        page.problems.append(str(error))

    archive = trail.archive(state)
    for line, entry in trail.entries(report):
        if entry is not None:
            replayed = replay(entry, archive)
            if replayed.basis:
                kept = archive.policy(entry["policy"])
                page.keep_policy(kept.policy, kept.text)
                page.keep_host(entry["topology"], archive.host(entry["topology"]))
            page.add(source, row(entry, source.name, line.place, replayed))
