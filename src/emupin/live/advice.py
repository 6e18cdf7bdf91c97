"""Which placement the measured load of a guest's emulator threads and vhost workers argues for, and why.

Pure: figures in, words out. The thresholds are rules of thumb, said beside each verdict; nothing is claimed that was
not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.guest.threads import IOTHREAD, VCPU, VHOST
from emupin.live.loads import OWN, total
from emupin.trace.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.live.loads import Load, Samples

    Cpus = frozenset[int]

LIGHT, HEAVY, FULL = 0.05, 0.30, 0.90
"""Of one CPU: below LIGHT vCPU 0 hardly notices, from HEAVY on it has to share, at FULL one CPU is not enough."""
WAITING = 0.05
"""Of the time: from here on emulator threads wait for a CPU more than they should."""
IDLE = 0.01
"""Of one CPU, all vCPUs together."""
SECONDS = 10.0
"""A shorter window says too little."""
PUSHED = 1.0
"""Involuntary switches a second from which a vCPU counts as preempted."""

NONE, FIRST_VCPU, POOL, DEDICATED = "none", "vcpu:0", "pool", "dedicated"
"""Verdicts: no placement, or one as a policy writes it."""


@dataclass(frozen=True)
class Advice:
    """What the figures argue for."""

    placement: str
    """As a policy writes it; NONE where they argue for nothing."""
    summary: str
    grounds: tuple[str, ...]
    limits: tuple[str, ...]
    """What was not measured."""


def advise(samples: Samples) -> Advice:
    """The verdict, by the busiest slice rather than the mean: packets are lost in bursts."""
    ours = [each for each in samples.loads if each.ours]
    run, wait = total(ours, "run"), total(ours, "wait")
    limits = tuple(_limits(samples, run))
    if run is None or wait is None:
        return Advice(NONE, "Nothing can be said: the kernel counts no run time for these threads.", (), limits)
    grounds = tuple(_grounds(samples, ours, run, wait))
    if samples.seconds < SECONDS:
        summary = f"Nothing is advised: {samples.seconds:.0f} s is too short, measure for {SECONDS:g} s at least."
        return Advice(NONE, summary, grounds, limits)
    if _is_idle(samples) and max(run, samples.busiest or 0.0) < HEAVY:
        summary = "Nothing is advised: the guest was idle, its load says nothing about a busy one. Measure again then."
        return Advice(NONE, summary, grounds, limits)
    return Advice(*_verdict(samples, ours, max(run, samples.busiest or 0.0), wait), grounds, limits)


def _verdict(samples: Samples, ours: Sequence[Load], peak: float, wait: float) -> tuple[str, str]:
    if peak >= HEAVY:
        more = " More than one CPU's worth may be wanted: try dedicated:2." if peak >= FULL else ""
        return DEDICATED, f"The figures support a CPU of their own (dedicated): {HEAVY:.0%} of a CPU or more.{more}"
    if wait >= WAITING and _crowded(samples, ours):
        return DEDICATED, (
            f"The figures support a CPU of their own (dedicated): they waited {WAITING:.0%} of the time or more "
            "for CPUs that others have, too."
        )
    if peak >= LIGHT:
        return POOL, (
            f"The figures support a CPU without vCPUs that several guests' emulator threads share (pool): "
            f"{LIGHT:.0%} to {HEAVY:.0%} of a CPU. vCPU 0's CPU (vcpu:0) does only if vCPU 0 can spare that much."
        )
    return FIRST_VCPU, f"The figures support no CPU of their own: below {LIGHT:.0%} of a CPU, vcpu:0 is enough."


def _is_idle(samples: Samples) -> bool:
    run = total([each for each in samples.loads if each.kind == VCPU], "run")
    return run is not None and run < IDLE


def _shared_with(samples: Samples, ours: Sequence[Load]) -> Cpus:
    """The CPUs of emulator threads that others have, too."""
    return frozenset(cpu for each in ours for cpu in each.allowed if samples.tenants.get(cpu))


def _crowded(samples: Samples, ours: Sequence[Load]) -> bool:
    """Whether those who have the same CPUs can be why they waited: vCPUs of their own guest that slept cannot."""
    shared = _shared_with(samples, ours)
    if any(not who.startswith(OWN) for cpu in shared for who in samples.tenants[cpu]):
        return True
    return any(each.kind == VCPU and each.allowed & shared and (each.run or 0) >= WAITING for each in samples.loads)


def _grounds(samples: Samples, ours: Sequence[Load], run: float, wait: float) -> Iterator[str]:
    workers = total([each for each in ours if each.kind == VHOST], "run")
    text = f"emulator threads{' and vhost workers' if workers is not None else ''} ran {run:.1%} of a CPU"
    if samples.busiest is not None and samples.slice_seconds < samples.seconds:
        text += f", {samples.busiest:.1%} in the busiest {samples.slice_seconds:.1f} s"
    yield text + (f"; vhost workers alone {workers:.1%}" if workers is not None else "")
    yield f"they waited {wait:.1%} of the time for a CPU, all threads added up"
    allowed = frozenset().union(*(each.allowed for each in ours))
    for cpu in sorted(allowed & samples.tenants.keys()):
        if samples.tenants[cpu]:
            yield f"CPU {cpu} is also that of {', '.join(samples.tenants[cpu])}"
    if not _shared_with(samples, ours):
        yield f"no guest is known to have CPU{'s' * (len(allowed) > 1)} {cpuset.format(allowed)}, too"
    if samples.trace:
        yield from map(_unstopped, verdict(samples.trace))
    else:
        yield from _preemptions(samples)
    yield from _overlaps(samples, allowed)


def _unstopped(sentence: str) -> str:
    """As the other grounds are: without a capital or a full stop."""
    text = sentence.rstrip(".")
    return text if text.startswith(OWN) else text[:1].lower() + text[1:]


def _preemptions(samples: Samples) -> Iterator[str]:
    for each in samples.loads:
        if each.kind == VCPU and each.involuntary is not None and each.involuntary >= PUSHED:
            yield f"vCPU {each.number} was preempted {each.involuntary:.1f} times a second"


def _overlaps(samples: Samples, allowed: Cpus) -> Iterator[str]:
    first = frozenset().union(*(each.allowed for each in samples.loads if each.kind == VCPU and each.number == 0))
    above = [each for each in samples.loads if each.kind == VCPU and each.number and each.allowed & allowed - first]
    for each in above:
        yield f"emulator threads may run on the CPU of vCPU {each.number}: no placement should allow that"


def _limits(samples: Samples, run: float | None) -> Iterator[str]:
    if run is not None and not any(each.kind == VHOST for each in samples.loads):
        yield "there was no vhost worker: vhost-user and vDPA have none, what carries their packets is not measured"
    if samples.transient:
        yield (
            f"{samples.transient} thread{'s' * (samples.transient > 1)} came or went meanwhile and "
            f"{'are' if samples.transient > 1 else 'is'} not in the figures"
        )
    iothreads = total([each for each in samples.loads if each.kind == IOTHREAD], "run")
    if iothreads is not None:
        yield f"iothreads ran {iothreads:.1%} of a CPU, which is not in the figures"
    if _is_idle(samples):
        yield f"the guest's vCPUs together ran less than {IDLE:.0%} of a CPU"
    if samples.trace is None:
        yield "an involuntary switch does not tell who came instead: `emupin trace` does, where the kernel lets it"
    yield "other hours may bring another load"
