"""`emupin advise`: which placement a guest's measured load argues for."""

from __future__ import annotations

import argparse
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from emupin.base import cpuset, streams
from emupin.base.errors import EmupinError, TraceError
from emupin.base.files import root_from_environment
from emupin.base.interruption import Interruption
from emupin.commands import options
from emupin.engine.situation import pins
from emupin.guest.threads import EMULATOR, VHOST
from emupin.live import advice, observe, survey, tracing
from emupin.live.loads import measure
from emupin.node.claims import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.live.advice import Advice
    from emupin.live.loads import Samples
    from emupin.live.observe import Observed
    from emupin.trace.result import Trace

SECONDS = 60.0
SLICES = 12
"""Looks in a window, if each has a second: the busiest slice tells of bursts."""

EPILOG = """\
The guest should do its usual work meanwhile. Measured are the run and wait time of its emulator threads and vhost
workers (schedstat), which other guests use their CPUs, and who took the CPUs of the vCPUs (as `emupin trace` does,
where the kernel lets it). Ctrl-C ends the window early. Nothing is changed.

status: 0; 2 after an error.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "advise",
        help="measure a guest, and say which placement the figures support",
        description="Measure the emulator load of a running guest, and say which placement the figures support.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("guest", metavar="GUEST", help="name or UUID of a running guest")
    options.add_duration(parser, SECONDS)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError."""
    root = root_from_environment()
    (name,) = survey.select(root, [args.guest])
    looks, trace, why = sample(root, name, args.seconds)
    samples = measure(looks, tenants(root, looks[-1]), trace)
    told = advice.advise(samples)
    if why:
        streams.say(f"without a trace: {why}")
    if args.json:
        _put_json(name, samples, told)
    else:
        streams.put("".join(f"{line}\n" for line in _lines(name, samples, told)).encode("utf-8", "surrogateescape"))
    return 0


def sample(root: str, name: str, seconds: float) -> tuple[list[Observed], Trace | None, str]:
    """Looks at one run of the guest, spread over the window, and a trace of it, or why there is none.

    Raises EmupinError where there are not two looks.
    """
    series = Series(lambda: observe.observe(root, name, None, None), seconds)
    trace, why = None, ""
    with Interruption() as interruption:
        try:
            trace = tracing.take(root, name, series.looks[0], seconds, interruption, lambda *_: series.look_again())
        except TraceError as error:
            why = str(error)
        while interruption.noted is None and (left := series.left()) > 0:
            time.sleep(min(left, 0.2))
            series.look_again()
        if interruption.noted != signal.SIGINT or len(series.looks) < 2:
            interruption.check()
    return series.looks, trace, why


class Series:
    """Looks at one run of a guest. Raises EmupinError where there is another run, or none."""

    def __init__(self, look: Callable[[], Observed], seconds: float) -> None:
        self.look = look
        self.looks = [look()]
        self.pause = max(seconds / SLICES, 1.0)
        self.end = self.looks[0].at + seconds

    def left(self) -> float:
        return self.end - time.monotonic()

    def look_again(self) -> None:
        """If it is time to."""
        if time.monotonic() >= min(self.looks[-1].at + self.pause, self.end):
            self.looks.append(self.look())
            if self.looks[-1].assessment.live.status.pid != self.looks[0].assessment.live.status.pid:
                raise EmupinError("emupin advise", "the guest was restarted during the measurement", "measure again")


def tenants(root: str, seen: Observed) -> dict[int, tuple[str, ...]]:
    """Who else has the CPUs on which the emulator threads may run, by what libvirt and the hook know."""
    live = seen.assessment.live
    guest = live.status.domain
    cpus = frozenset().union(*(each.allowed for each in live.threads if each.kind in (EMULATOR, VHOST)))
    ledger = Ledger.look(root, None)
    names = {each.uuid: name[: -len(".xml")] for name, each in ledger.running_guests.items()}
    others = ledger.others(guest.uuid, cpus)
    found: dict[int, list[str]] = {cpu: [] for cpu in cpus}
    for vcpu, allowed in pins(guest):
        for cpu in cpus if allowed is None else cpus & allowed:
            found[cpu].append(f"vCPU {vcpu}" + (", which is not pinned" if allowed is None else ""))
    uses = [(others.vcpus, "vCPUs"), (others.floating, "vCPUs, which are not pinned")]
    for by_guest, what in (*uses, (others.dedicated, "emulator"), (others.shared, "emulator")):
        for uuid, theirs in by_guest.items():
            for cpu in cpus & theirs:
                found[cpu].append(f"{names.get(uuid, uuid)}'s {what}")
    return {cpu: tuple(each) for cpu, each in found.items()}


def _lines(name: str, samples: Samples, told: Advice) -> Iterator[str]:
    yield f"{name}, measured for {samples.seconds:.0f} s:"
    yield told.summary
    for ground in told.grounds:
        yield f"  {ground}"
    if told.limits:
        yield "Not known:"
        for limit in told.limits:
            yield f"  {limit}"


def _put_json(name: str, samples: Samples, told: Advice) -> None:
    import json

    loads = [{**asdict(each), "allowed": cpuset.format(each.allowed)} for each in samples.loads]
    figures = {**asdict(samples), "loads": loads, "tenants": {str(cpu): who for cpu, who in samples.tenants.items()}}
    streams.put((json.dumps({"name": name, **asdict(told), "measured": figures}) + "\n").encode())
