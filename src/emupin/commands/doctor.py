"""`emupin doctor`: what keeps the hook from working on this host, and the cure for each of it."""

from __future__ import annotations

import argparse
import dataclasses
import json

from emupin.base import streams
from emupin.base.files import root_from_environment
from emupin.commands import options
from emupin.screen import terminal

EPILOG = """\
Nothing is changed. On a healthy host the output is one line; --verbose shows every check, including those that could
not be made. Most of these need root. A warning: the hook works, but with a limitation.

status: 0 no problems (warnings are allowed); 1 problems; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="find what keeps the hook from working and how to fix it",
        description="Find what keeps the hook from working on this host, and how to fix it.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("--verbose", action="store_true", help="show every check, not only problems and warnings")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where stdout takes nothing."""
    from emupin.doctor import report
    from emupin.doctor.checkup import examine
    from emupin.doctor.diagnosis import LEVELS, PROBLEM
    from emupin.doctor.machine import this_machine

    findings = examine(this_machine(root_from_environment()))
    if args.json:
        counts = {level: report.count(findings, level) for level in LEVELS}
        plain = {**counts, "findings": [dataclasses.asdict(finding) for finding in findings]}
        streams.put((json.dumps(plain) + "\n").encode())
    else:
        colour = terminal.wants_colour()
        terminal.put(report.render(findings, args.verbose, colour), colour)
    return int(report.count(findings, PROBLEM) > 0)
