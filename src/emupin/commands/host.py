"""`emupin host`: the CPUs of a host as a picture, as JSON, or recorded in a file that stands for it elsewhere."""

from __future__ import annotations

import argparse
import json
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from emupin.base import cpuset, output, streams
from emupin.base.errors import EmupinError
from emupin.base.files import LIBVIRT_RUN, policy_path, root_from_environment
from emupin.base.text import printable
from emupin.commands import options
from emupin.engine import snapshot
from emupin.engine.host import to_json
from emupin.engine.marks import NO_CPUS, OF_OTHERS, Mark, marks
from emupin.engine.situation import Others, Own, all_of
from emupin.live.facts import without
from emupin.node.claims import Ledger, from_mask
from emupin.screen import terminal
from emupin.screen.picture import draw

if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.engine.snapshot import Snapshot
    from emupin.policy.values import Policy

EPILOG = """\
The picture has a cell for each online CPU, the siblings of a core side by side; the legend says what its symbols mean.
Below it, `in /machine` and the like are the CPUs that guests in a partition may have, where that is not every CPU.
--snapshot writes all of it as one JSON file, which `--host FILE` reads in place of this machine, here or elsewhere.

status: 0; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "host",
        help="show the host's CPUs, and which guest uses which",
        description="Show the host's CPUs: node, core, siblings, isolated, reserved, pool, and their guests.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("--host", metavar="FILE", help="a recorded host, or its root folder (default: this machine)")
    options.add_policy(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--snapshot", action="store_true", help="record the host, for --host FILE")
    parser.add_argument("-o", "--output", metavar="FILE", help=f"with --snapshot: {output.HELP}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the host or the policy cannot be read, or the file not written."""
    _check_usage(args)
    policy = None if args.snapshot else _policy(args.policy)
    recorded = snapshot.read(args.host) if args.host else _this_machine(policy)
    if args.snapshot:
        output.save(args.output, snapshot.render(recorded).encode())
    elif args.json:
        streams.put((json.dumps(_plain(recorded, policy)) + "\n").encode())
    else:
        _show(recorded, policy)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    if args.output and not args.snapshot:
        raise EmupinError("emupin host", "-o without --snapshot", "add --snapshot, or redirect the picture with >")
    if args.host == "none":
        raise EmupinError("emupin host", "--host none leaves nothing to show", "give a recorded host or omit it")


def _policy(path: str | None) -> Policy | None:
    """The policy whose CPUs are shown; a host that has none is shown without. Raises PolicyError."""
    return options.read_policy(path) if path or policy_path(root_from_environment()) else None


def _this_machine(policy: Policy | None) -> Snapshot:
    """Raises HostError."""
    root = root_from_environment()
    found = snapshot.take(root, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return snapshot.Snapshot(found.host, found.remarks, *_held(root, found.host, policy))


def _held(root: str, host: Host, policy: Policy | None) -> tuple[Others, dict[str, Own]]:
    """What every running guest has. Who may not look, or finds a file that cannot be read, sees the CPUs alone."""
    if not os.path.isdir(root + LIBVIRT_RUN):
        return Others(), {}
    try:
        ledger = Ledger.look(root, policy, host)
    except EmupinError as error:
        streams.say(f"which guest uses which CPU is not shown: {error}")
        return Others(), {}
    for fault in ledger.faults:
        streams.say(fault)
    held = ledger.others(None, host.online)
    return held, {uuid: own for uuid in ledger.claims if (own := _own(ledger, uuid, held, host))}


def _own(ledger: Ledger, uuid: str, held: Others, host: Host) -> Own | None:
    """What the guest `uuid` has by the ledger; None where `held` tells as much. Its CPUs alone say what is its own."""
    claim, told = ledger.claims[uuid], without(held, uuid)
    if not claim.alone and not claim.vhost:
        own = Own(previous=from_mask(claim.cpus) or told.previous)
    else:
        found = ledger.others(uuid, host.online)
        own = Own(found.previous, found.vhost, all_of(told.shared) - all_of(found.shared))
    return own if own != Own(told.previous) else None


def _marks(recorded: Snapshot, policy: Policy | None) -> dict[int, Mark]:
    reserved, pool = (policy.reserved, policy.pool or NO_CPUS) if policy else (NO_CPUS, NO_CPUS)
    return marks(recorded.host, reserved, pool, recorded.held)


def _show(recorded: Snapshot, policy: Policy | None) -> None:
    """The picture, then the lists to copy from; a remark for each list of the policy that this host cannot follow."""
    host = recorded.host
    zones = [("reserved", policy.reserved), ("pool", policy.pool or NO_CPUS)] if policy else []
    lists = [
        (name, cpus) for name, cpus in [("isolated", host.isolated), ("nohz_full", host.nohz_full), *zones] if cpus
    ]
    lists += [(f"in {printable(name)}", host.within(name)) for name in sorted(host.partitions)]
    colour = terminal.wants_colour()
    text = draw(host, _marks(recorded, policy), terminal.width(), colour)
    text += "".join(["\n" * bool(lists), *(f"{name:<10} {cpuset.format(cpus)}\n" for name, cpus in lists)])
    terminal.put(text, colour)
    for name, cpus in zones:
        if not cpus <= host.online:
            streams.say(
                f"the policy's host.{name} has CPUs that are not online here: {cpuset.format(cpus - host.online)}"
            )


def _plain(recorded: Snapshot, policy: Policy | None) -> dict[str, Any]:
    """The facts, the policy's CPUs, and all of it again by CPU."""
    host = recorded.host
    zones = {"reserved": cpuset.format(policy.reserved), "pool": cpuset.format(policy.pool or ())} if policy else {}
    cpus = [
        {
            "cpu": cpu,
            "node": host.node_of(cpu),
            "siblings": cpuset.format(host.siblings(cpu)),
            "isolated": mark.isolated,
            "reserved": mark.reserved,
            "pool": mark.pool,
            "interrupts": mark.interrupts,
            **{use: list(getattr(mark, field)) for use, field in OF_OTHERS.items()},
        }
        for cpu, mark in sorted(_marks(recorded, policy).items())
    ]
    held = snapshot.held_json(recorded.held, {})
    return {**recorded.remarks, **to_json(host), **held, **zones, "cpus": cpus}
