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
An argument with a slash, or that exists as a file, is a FILE: a domain XML, or libvirt's status XML of a running
guest. Anything else is the name or UUID of a GUEST that runs or is defined here. The picture shows the host's CPUs
with this guest's vCPUs; the legend explains its symbols. All checks of a placement are shown, including those after
the one that rejected it.

Other running guests and the CPUs they hold are taken into account: those of this machine, or those recorded in
`--host FILE`. Nothing is claimed or changed.

status: 0, even if every placement fails; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="explain why a guest's emulator threads go where they go",
        description="Show which rule matches a guest, and the result of its placements and their checks.",
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
