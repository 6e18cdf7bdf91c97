"""`emupin policy test`: a policy tried on many guests, or compared with an older one."""

from __future__ import annotations

import argparse
import json

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.commands import options
from emupin.fleet import batches, together
from emupin.fleet.together import Capacity, Company
from emupin.fleet.trial import Side, Tally, Trial, summary
from emupin.live.facts import read_facts

EPILOG = """\
stdout has one line per guest: file, name, rule, placement, CPUs before -> after, and the iothreads that would follow;
with --json one object per line. With --against, only guests whose outcome would differ: other CPUs, or another effect
of persist, iothreads, drift or on_failure.
A folder stands for every *.xml file below it. Remarks, and how many guests each rule matches, go to stderr.

Each guest is decided as if it were the only one to start: `dedicated` can give the same CPU to several of them. With
--together they start on one host, in the order of the files: each keeps what it gets, and the end says where the pool
runs out and how many more guests would fit; with --json in a last line, an object with the key `capacity`. The guests
that run on this machine, or did when `--host FILE` was recorded, keep what they hold.

status: 0; 1 if no placement of some guest passes its checks, or, with --against, if the outcome of some guest differs;
2 after an error. A bad file does not stop the others.
"""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "test",
        help="show which rule matches which guest, and what the guest would get",
        description="Show which rule matches each guest, and what the guest would get.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="domain XML files or folders; - is stdin")
    parser.add_argument("--against", metavar="OLD", help="show only what changes from the policy in OLD to this one")
    parser.add_argument(
        "--together", action="store_true", help="take the files as guests that start in order on one host"
    )
    parser.add_argument("--jobs", type=options.count, metavar="N", help="processes (default: one for each CPU)")
    options.add_policy(parser)
    options.add_host(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where a policy or the host cannot be read."""
    if "-" in args.files and len(args.files) > 1:
        raise EmupinError("emupin policy test", "- (stdin) cannot be combined with other files", "test it separately")
    new = _side(args.policy, args.host, args.together)
    old = _side(args.against, args.host, args.together) if args.against else None
    total = _try(Trial(new, old, args.json), args.files, 1 if args.together else args.jobs or batches.cores())
    if not total.files and not total.failed:
        streams.say("there is no *.xml file")
    _sum_up(total, new, old is not None)
    if new.company:
        _tell_capacity(new.company.capacity(), args.json)
    if total.failed:
        return 2
    return int(total.changed > 0 if old else total.troubled > 0)


def _side(policy_path: str | None, host: str | None, together: bool) -> Side:
    policy = options.read_policy(policy_path)
    facts = read_facts(host, policy)
    return Side(policy, facts, Company(policy, facts) if together else None)


def _try(trial: Trial, files: list[str], jobs: int) -> Tally:
    total, found, progress = Tally(), Tally(), batches.Progress()
    for tally in batches.through(Tally, trial.document, files, jobs, found.fail):
        progress.clear()
        tally.put()
        total.merge(tally)
        progress.show(f"{total.files:,} guests")
    progress.clear()
    found.put()
    total.merge(found)
    return total


def _tell_capacity(capacity: Capacity, as_json: bool) -> None:
    if as_json:
        streams.put((json.dumps({"capacity": together.to_json(capacity)}) + "\n").encode())
    for line in together.lines(capacity):
        streams.say(line)


def _sum_up(total: Tally, new: Side, against: bool) -> None:
    for remark in new.facts.remarks:
        streams.say(remark)
    if total.foreign:
        more = f" (and {total.foreign - 1:,} more of the guests)" if total.foreign > 1 else ""
        streams.say(f"{total.first_foreign}{more}")
    for line in summary(total, new.policy, against):
        streams.say(line)
