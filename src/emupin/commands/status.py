"""`emupin status`: every thread of the running guests, and where they are not what the policy wants."""

from __future__ import annotations

import argparse
import gc
import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from emupin.base import output, streams
from emupin.base.errors import EmupinError
from emupin.base.files import root_from_environment
from emupin.base.text import printable
from emupin.commands import options
from emupin.live import survey
from emupin.screen import statustext, terminal, watch

if TYPE_CHECKING:
    from emupin.live.rates import RatesByGuest
    from emupin.live.survey import Survey

SECONDS = 2.0
"""Between two looks."""

EPILOG = """\
A line for each thread: what it is, its id and name, the CPUs it may run on, the CPU it ran on last, voluntary and
involuntary context switches, migrations, time on a CPU and time waiting for one. With --watch the figures are
rates: switches and migrations a second, and parts of the time.

A helper is a thread of a process that libvirt started beside QEMU (swtpm, virtiofsd, passt, …), or one of KVM's own. It
is shown, never counted as drift, and never moved.

! marks what is not as planned; below the table stand what was found, what was planned, and the likely cause.
> marks a vCPU from 1 up that was preempted since the last look.

status: 0 everything is in sync; 1 something has drifted; 2 after an error. --watch ends with Ctrl-C.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show the threads of running guests, and what has drifted",
        description="Show every thread of the running guests, their pins, and what differs from the policy.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("guests", nargs="*", metavar="GUEST", help="name or UUID (default: all that run)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--prometheus", action="store_true", help="print metrics in Prometheus' text format")
    parser.add_argument("-o", "--output", metavar="FILE", help=f"with --prometheus: {output.HELP}")
    parser.add_argument(
        "--watch",
        nargs="?",
        const=SECONDS,
        type=_seconds,
        metavar="SECONDS",
        help=f"refresh every N seconds (default: {SECONDS:g}) and show rates",
    )
    options.add_policy(parser)
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return seconds


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where nothing can be looked at."""
    _check_usage(args)
    policy = options.read_policy(args.policy) if args.policy else None
    root = root_from_environment()

    def look() -> Survey:
        return survey.take(root, args.guests, policy)

    if args.watch:
        return _watch(args, look)
    gc.disable()  # The process ends with this one look: collecting what it holds costs a twentieth of it.
    found = look()
    if args.prometheus:
        _export(found, args.output)
    elif args.json:
        _put_json(found, None)
    else:
        terminal.put(_text(found, None), terminal.wants_colour())
    _say(found)
    return found.exit_status


def _check_usage(args: argparse.Namespace) -> None:
    if args.output and not args.prometheus:
        raise EmupinError("emupin status", "-o without --prometheus", "add --prometheus, or use >")
    if args.watch and args.prometheus:
        hint = "the collector computes rates from the counters: omit --watch"
        raise EmupinError("emupin status", "--watch with --prometheus", hint)


def _watch(args: argparse.Namespace, look: watch.Look) -> int:
    draws = os.isatty(streams.STDOUT) and not args.json

    def show(found: Survey, rates: RatesByGuest) -> None:
        if args.json:
            _put_json(found, rates)
        elif draws:
            trouble = "".join(f"{line}\n" for line in map(printable, (*found.errors, *found.remarks)))
            watch.draw(_heading(args.watch) + _text(found, rates) + trouble)
        else:
            terminal.put(_heading(args.watch) + _text(found, rates) + "\n", False)
        if not draws:
            _say(found)

    with watch.second_screen() if draws else nullcontext():
        if draws:
            watch.draw(_heading(args.watch) + "measuring …")
        return watch.watch(look, show, args.watch)


def _heading(seconds: float) -> str:
    return f"{time.strftime('%H:%M:%S')}, every {seconds:g} s\n\n"


def _text(found: Survey, rates: RatesByGuest | None) -> str:
    """As wide as the terminal; where there is none, as wide as it gets."""
    return statustext.render(found, rates, terminal.size().columns, terminal.wants_colour())


def _put_json(found: Survey, rates: RatesByGuest | None) -> None:
    import json

    from emupin.live import statusjson

    streams.put((json.dumps(statusjson.to_json(found, rates)) + "\n").encode())


def _export(found: Survey, path: str | None) -> None:
    from emupin.live import prometheus

    output.save(path, prometheus.render(found), prometheus.MODE)


def _say(found: Survey) -> None:
    for line in (*found.errors, *found.remarks):
        streams.say(line)
