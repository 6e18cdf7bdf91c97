"""A trace of a running guest, with what the kernel counted by itself meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emupin.base.errors import EmupinError, HostError
from emupin.guest.threads import VCPU
from emupin.live import observe, rates
from emupin.trace import result
from emupin.trace.recording import Recording
from emupin.trail import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.base.interruption import Interruption
    from emupin.guest.threads import Thread
    from emupin.live.observe import Observed
    from emupin.live.rates import Rates
    from emupin.trace.account import Account
    from emupin.trace.recording import Recorded
    from emupin.trace.result import Trace, Vcpu


def take(
    root: str,
    name: str,
    first: Observed,
    seconds: float,
    interruption: Interruption,
    tell: Callable[[float, Account], None],
) -> Trace:
    """Trace the guest `name`, which was looked at `first`, until the time is over, it ends, or a signal is noted.

    `tell` is called several times a second. Raises HostError, TraceError where the kernel does not let us.
    """
    live = first.assessment.live
    vcpus = [thread for thread in live.threads if thread.kind == VCPU]
    if not vcpus:
        raise HostError(name, "has no thread of a vCPU", "the guest may still be starting")
    found = Recording(root, name, live.status, vcpus).run(seconds, interruption, tell)
    trace = result.make(name, live.status.domain.uuid or "", entries.now(), live.threads, found)
    return _with_counters(replace(trace, remarks=tuple(_remarks(vcpus, found))), root, first)


def _remarks(vcpus: list[Thread], found: Recorded) -> Iterator[str]:
    if found.ended:
        yield f"the guest ended after {found.seconds:.1f} s"
    floating = [thread.number for thread in vcpus if not thread.allowed <= found.whole]
    if floating:
        yield (
            f"{len(floating)} vCPUs may run on many CPUs: what they lose counts for whoever pushed them off, "
            "though others may have followed"
        )
    if found.own & found.whole:
        yield "this process had to run on the vCPUs' CPUs, too: there are no others"


def _with_counters(trace: Trace, root: str, first: Observed) -> Trace:
    """With what the kernel counted itself meanwhile, where the guest still runs."""
    try:
        last = observe.observe(root, trace.guest, None, None)
    except EmupinError:  # It has ended.
        return trace
    found = rates.of_guest(first, last)
    seconds = last.at - first.at
    vcpus = []
    for vcpu in trace.vcpus:
        mine = found.get(vcpu.tid)
        vcpus.append(_counted(vcpu, mine, seconds) if mine else vcpu)
    return replace(trace, vcpus=tuple(vcpus))


def _counted(vcpu: Vcpu, rates: Rates, seconds: float) -> Vcpu:
    count = None if rates.involuntary is None else round(rates.involuntary * seconds)
    return replace(vcpu, involuntary=count, run=rates.run, wait=rates.wait)
