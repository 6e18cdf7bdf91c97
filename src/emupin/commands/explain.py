"""`emupin explain`: why the emulator threads of one guest go where they go."""

from __future__ import annotations

import argparse
import json

from emupin.base import streams
from emupin.base.files import root_from_environment
from emupin.commands import options
from emupin.engine.explanation import explain, to_json
from emupin.fleet.foreign import absent_cpus
from emupin.live import lookup
from emupin.live.facts import read_facts
from emupin.screen import terminal
from emupin.screen.explanationtext import render

EPILOG = """\
What is there as a file, or has a slash, is a FILE: a domain XML, or libvirt's status XML of a running guest. All else
is the name or the UUID of a GUEST that runs here, or else is defined here. The picture is of the host's CPUs with this
guest's vCPUs on them; the legend says what its symbols mean. Every check of a placement is shown, also those behind
the one that it was skipped for.

Other running guests and the CPUs that they hold are taken into account: this machine's, or those that `--host FILE`
recorded. Nothing is claimed or changed.

status: 0, also where every placement fails; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="tell why a guest's emulator threads go where they go",
        description="Tell which rule takes a guest, and what came of its placements and their checks.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("guest", metavar="FILE|GUEST", help="a domain XML, - for stdin, or a guest's name or UUID")
    options.add_policy(parser)
    options.add_host(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the guest, the policy or the host cannot be read."""
    policy = options.read_policy(args.policy)
    guest, source = lookup.find(args.guest, root_from_environment())
    facts = read_facts(args.host, policy)
    told = explain(guest, policy, facts.host, facts.others(guest))
    if args.json:
        streams.put((json.dumps(to_json(told, source)) + "\n").encode())
    else:
        colour = terminal.wants_colour()
        terminal.put(render(told, source, terminal.width(), colour), colour)
    foreign = absent_cpus(guest, facts)
    for remark in (*facts.remarks, *([foreign] if foreign else [])):
        streams.say(remark)
    return 0
