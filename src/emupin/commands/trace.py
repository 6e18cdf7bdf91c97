"""`emupin trace`: who took the vCPUs' CPUs while they wanted to run."""

from __future__ import annotations

import argparse
import json
import os
import signal
from typing import TYPE_CHECKING

from emupin.base import output
from emupin.base.errors import EmupinError
from emupin.base.files import root_from_environment
from emupin.base.interruption import Interruption
from emupin.commands import options
from emupin.fleet.batches import Progress
from emupin.live import observe, survey, tracing
from emupin.screen import terminal, tracetext
from emupin.trace import saved

if TYPE_CHECKING:
    from emupin.trace.account import Account
    from emupin.trace.result import Trace

SECONDS = 10.0

EPILOG = """\
The kernel's own scheduling events (sched_switch, sched_waking) are recorded in a tracefs instance that is removed
again; tracing by others is not disturbed. A switch on a traced CPU takes about 0.6 µs longer.

For each vCPU the tables show who had its CPU while it wanted to run: TIMES/s how often, ms/s how long, LONGEST a
single time; then how often it was preempted and woken, and how long it waited to run again. A guest that
polls should lose nothing on vCPUs from 1 up. Ctrl-C ends the time early.

FILE in the place of GUEST is a trace that --json -o has saved: it is shown again, or compared.

status: 0; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "trace",
        help="measure who takes a guest's vCPUs off their CPUs",
        description="Record who took the CPUs of a running guest's vCPUs while they wanted to run, and for how long.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("guest", metavar="GUEST|FILE", help="name or UUID of a running guest, or a saved trace")
    options.add_duration(parser, SECONDS)
    options.add_json(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help=f"with --json: {output.HELP}")
    parser.add_argument("--against", metavar="FILE", help="compare with a saved trace")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError."""
    if args.output and not args.json:
        raise EmupinError("emupin trace", "-o without --json", "add --json")
    before = saved.read(args.against) if args.against else None
    trace = saved.read(args.guest) if is_file(args.guest) else take(root_from_environment(), args.guest, args.seconds)
    if args.json:
        _put_json(trace, before, args.output)
    if not (args.json and output.is_stdout(args.output)):
        text = tracetext.render(trace, before, terminal.size().columns, terminal.wants_colour())
        terminal.put(text, terminal.wants_colour())
    return 0


def is_file(argument: str) -> bool:
    return "/" in argument or os.path.isfile(argument)


def take(root: str, wanted: str, seconds: float) -> Trace:
    """Trace a running guest. Raises EmupinError; InterruptedBySignal after SIGTERM or SIGHUP, when all is put away."""
    (name,) = survey.select(root, [wanted])
    first = observe.observe(root, name, None, None)
    progress = Progress()

    def tell(elapsed: float, account: Account) -> None:
        taken = sum(each.gaps.count for each in account.vcpus.values())
        progress.clear()
        progress.show(f"{elapsed:.0f} of {seconds:.0f} s: vCPUs lost their CPUs {taken:,} times; Ctrl-C ends it")

    with Interruption() as interruption:
        trace = tracing.take(root, name, first, seconds, interruption, tell)
        progress.clear()
        if interruption.noted != signal.SIGINT:
            interruption.check()
    return trace


def _put_json(trace: Trace, before: Trace | None, path: str | None) -> None:
    values = saved.to_json(trace)
    if path is None and before is not None:
        values["before"] = saved.to_json(before)
    output.save(path, (json.dumps(values) + "\n").encode())
