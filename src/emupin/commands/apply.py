"""`emupin apply`: guests that have drifted, and with `--yes` are back in sync."""

from __future__ import annotations

import argparse
import functools
import os
from typing import TYPE_CHECKING

from emupin.base import kept, streams
from emupin.base.errors import EmupinError, PolicyError
from emupin.base.files import DEFINITIONS, POLICIES, read_bytes, root_from_environment
from emupin.commands import options
from emupin.engine.kernelfiles import ONLINE, cpus_in
from emupin.live import applying, lookup, observe
from emupin.live.alignment import Request
from emupin.live.applying import ENDED, FAILED, IN_LINE, LEFT_ALONE, OUT_OF_LINE, Means
from emupin.node import store
from emupin.screen.applytext import count, lines, to_json, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emupin.live.applying import Result
    from emupin.order import Order
    from emupin.policy.values import Policy
    from emupin.recording import Recorded

EPILOG = """\
Without --yes nothing is changed: the lines of <cputune> that would change in libvirt's live and persistent XML are
shown, and the threads that would move. With --yes the threads are moved first, as the hook does it, then libvirt is
asked to change its XML. A guest that is shut off has its persistent XML changed, where the policy says
`persist: true`: its next start has the pin at once. A guest that cannot be placed now only causes a warning; the
decision is made again at its next start, and a pin that libvirt could not start it with is taken out, or gives way to
what stood there before emupin's. Guests that no rule takes, or that a rule keeps, are left alone.

The hook goes on with the installed policy, whatever --policy says here.

--undo puts back the pins that stood in libvirt's XML before emupin recorded its own, and moves the threads there. A pin
that was changed since stays, and one that libvirt cannot start the guest with now is left out. --undo does not know of
a pin applied during an incoming migration or restore: the live pin ends with that run, and the next start has what the
persistent XML says; `virsh edit` changes that. The hook places the guest again when it is started next or libvirtd is
restarted, unless the policy has changed.

A managed save or a snapshot may bring emupin's pins back: --undo names guests that have one, and takes such pins back
when it is run again. For these guests that applies to the same pin set by hand, too.

status: 0 everything is in sync, or was fixed; 1 without --yes: something would change; 2 after an error.
"""


ROUNDS = 10
"""CPUs may go and come while guests are brought in line: how often to begin anew."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "apply",
        help="bring guests in sync with the policy",
        description="Bring the live threads, the live XML and the persistent XML of guests in sync with the policy.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("guests", nargs="*", metavar="GUEST", help="name or UUID; running, or shut off")
    parser.add_argument("--all", action="store_true", help="all running and defined guests")
    parser.add_argument(
        "--drift", action="store_true", help="running guests whose rule says `drift: fix`; quiet (for udev and systemd)"
    )
    parser.add_argument("--yes", action="store_true", help="make the changes (default: only show them)")
    parser.add_argument("--undo", action="store_true", help="put back what stood there before emupin recorded its pins")
    options.add_policy(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where nothing can be done at all."""
    if bool(args.guests) + args.all + args.drift != 1 or (args.drift and args.undo):
        raise EmupinError("emupin apply", "which guests?", "name some, or give --all, or --drift")
    if args.undo and args.policy:
        raise EmupinError("emupin apply", "--undo with --policy", "no policy counts there: omit --policy")
    root = root_from_environment()
    if args.undo:
        from emupin.commands import undo

        return undo.run(root, _chosen(root, args.guests) if args.guests else _all(root), args)
    request = _request(root, args.policy, args.drift)
    if not args.drift:
        return _run(args, request, _all(root) if args.all else _chosen(root, args.guests))
    for _ in range(ROUNDS):
        online = cpus_in(root, ONLINE)
        status = _run(args, request, observe.running(root))
        if cpus_in(root, ONLINE) == online:
            break
    return status


def _run(args: argparse.Namespace, request: Request, names: Sequence[str]) -> int:
    root = request.root
    if args.policy and args.yes:
        _keep_policy(root, request.policy, args.policy)
    for problem in request.problems:
        streams.say(problem)
    means = Means(os.sched_setaffinity, functools.partial(_record, request.policy)) if args.yes else None
    results: list[Result] = []
    said: dict[str, str] = {}
    for result in applying.apply(request, names, means):
        results.append(result)
        if not args.json and not (args.drift and result.state in (IN_LINE, LEFT_ALONE, ENDED)):
            text = "".join(f"{line}\n" for line in lines(result, args.yes, said))
            streams.put(text.encode("utf-8", "surrogateescape"))
            if result.error:
                streams.say(f"{result.name}: {result.error}")
    if args.json:
        _put_json(request, results, args.yes)
    else:
        if not args.drift:
            streams.put(f"{total(results)}\n".encode())
        if not args.yes and count(results, OUT_OF_LINE):
            streams.say("nothing was changed; add --yes to make the changes")
    return _exit_status(request, results)


def _record(policy: Policy, root: str, order: Order) -> dict[str, Recorded]:
    from emupin import recording

    return recording.record_audited(root, order, policy, hurried=True)


# -- which policy, which guests ---------------------------------------------------------------------------------------


def _request(root: str, path: str | None, drift_only: bool) -> Request:
    """Raises PolicyError."""
    if path is None:
        found = store.find(root)
        if found.policy is None:
            if found.problems:
                raise PolicyError("", "; ".join(found.problems))
            raise PolicyError(root + POLICIES[0], "no policy is installed", "write one, or give --policy FILE")
        return Request(root, found.policy, found.problems, drift_only)
    return Request(root, options.read_policy(path), drift_only=drift_only)


def _keep_policy(root: str, policy: Policy, path: str) -> None:
    """Keep the file as the installed ones are, for `audit replay`; without it only that does not work."""
    try:
        kept.keep(root, kept.POLICIES_KEPT, policy.digest + os.path.splitext(path)[1], read_bytes(path))
    except OSError as error:
        streams.say(f"{error.filename}: {error.strerror}; the policy was not saved for replay")


def _defined(root: str) -> list[str]:
    try:
        names = os.listdir(root + DEFINITIONS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EmupinError(root + DEFINITIONS, f"cannot be listed: {error.strerror}", "run it as root") from None
    return sorted(name[:-4] for name in names if name.endswith(".xml"))


def _all(root: str) -> list[str]:
    """Running guests first: they hold CPUs. Raises EmupinError."""
    return list(dict.fromkeys([*observe.running(root), *_defined(root)]))


def _chosen(root: str, wanted: Sequence[str]) -> list[str]:
    """The names of the guests with these names or UUIDs. Raises EmupinError."""
    names, known = [], set(_all(root))
    for each in wanted:
        if each not in known:
            if "/" in each or os.path.exists(each):
                raise EmupinError(each, "is a file", "give a guest's name or UUID; `emupin rewrite` is for files")
            _, path = lookup.find(each, root)
            each = os.path.basename(path)[:-4]
        names.append(each)
    return list(dict.fromkeys(names))


# -- what is said -----------------------------------------------------------------------------------------------------


def _exit_status(request: Request, results: Sequence[Result]) -> int:
    if request.problems or count(results, FAILED):
        return 2
    return int(count(results, OUT_OF_LINE) > 0)


def _put_json(request: Request, results: Sequence[Result], applied: bool) -> None:
    import json

    told = {"policy": request.policy.digest, "applied": applied, "guests": [to_json(each) for each in results]}
    streams.put((json.dumps(told) + "\n").encode())
