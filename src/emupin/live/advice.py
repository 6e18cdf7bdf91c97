"""Which placement the measured load of a guest's emulator threads and vhost workers argues for, and why.

Pure: `measure` makes figures of several looks at the same guest, `advise` words of the figures. The thresholds are
rules of thumb, said beside each verdict; nothing is claimed that was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.guest.threads import EMULATOR, IOTHREAD, VCPU, VHOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.live.observe import Observed

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
class Load:
    """One thread over the window; None where the kernel does not count it."""

    tid: int
    name: str
    kind: str
    number: int | None
    allowed: Cpus
    last_cpu: int | None
    run: float | None
    """Part of the time on a CPU."""
    wait: float | None
    """Part of the time ready to run, and not running."""
    involuntary: float | None
    """Switches a second."""

    @property
    def ours(self) -> bool:
        return self.kind in (EMULATOR, VHOST)


@dataclass(frozen=True)
class Samples:
    """A guest over a window."""

    seconds: float
    loads: tuple[Load, ...]
    busiest: float | None = None
    """Of one CPU, emulator threads and vhost workers together, in the busiest slice."""
    slice_seconds: float = 0.0
    """The longest slice."""
    transient: int = 0
    """Threads that were not there from the first look to the last."""
    tenants: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Who else has the CPUs on which emulator threads may run."""


@dataclass(frozen=True)
class Advice:
    """What the figures argue for."""

    placement: str
    """As a policy writes it; NONE where they argue for nothing."""
    summary: str
    grounds: tuple[str, ...]
    limits: tuple[str, ...]
    """What was not measured."""


# -- figures ----------------------------------------------------------------------------------------------------------


def measure(looks: Sequence[Observed], tenants: Mapping[int, tuple[str, ...]]) -> Samples:
    """The figures of two or more looks at the same run of a guest, in their order."""
    first, last = looks[0], looks[-1]
    seconds = last.at - first.at
    slices = [(after.at - before.at, _our_run(before, after)) for before, after in zip(looks, looks[1:])]
    parts = [run / 1e9 / length for length, run in slices if run is not None and length > 0]
    seen = [set(each.counters) for each in looks]
    return Samples(
        seconds,
        tuple(_loads(first, last, seconds)),
        max(parts, default=None),
        max(length for length, _ in slices),
        len(set().union(*seen) - seen[0].intersection(*seen)),
        tenants,
    )


def _our_run(before: Observed, after: Observed) -> int | None:
    """Nanoseconds of emulator threads and vhost workers that were there both times."""
    total = None
    for thread in after.assessment.live.threads:
        if thread.kind in (EMULATOR, VHOST) and thread.tid in before.counters:
            old, new = before.counters[thread.tid].run, after.counters[thread.tid].run
            if old is not None and new is not None:
                total = (total or 0) + max(new - old, 0)
    return total


def _loads(first: Observed, last: Observed, seconds: float) -> Iterator[Load]:
    for thread in last.assessment.live.threads:
        if thread.tid not in first.counters:
            continue
        old, new = first.counters[thread.tid], last.counters[thread.tid]
        yield Load(
            thread.tid,
            thread.name,
            thread.kind,
            thread.number,
            thread.allowed,
            new.cpu,
            _rate(old.run, new.run, 1e9 * seconds),
            _rate(old.wait, new.wait, 1e9 * seconds),
            _rate(old.involuntary, new.involuntary, seconds),
        )


def _rate(old: int | None, new: int | None, unit: float) -> float | None:
    return None if old is None or new is None else max(new - old, 0) / unit


def total(loads: Sequence[Load], key: str) -> float | None:
    """The sum of a figure; None where no thread has it."""
    figures = [figure for each in loads if (figure := getattr(each, key)) is not None]
    return sum(figures) if figures else None


# -- words ------------------------------------------------------------------------------------------------------------


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
    if _is_idle(samples) and max(run, samples.busiest or 0.0) < HEAVY and wait < WAITING:
        summary = "Nothing is advised: the guest was idle, its load says nothing about a busy one. Measure again then."
        return Advice(NONE, summary, grounds, limits)
    return Advice(*_verdict(samples, ours, max(run, samples.busiest or 0.0), wait), grounds, limits)


def _verdict(samples: Samples, ours: Sequence[Load], peak: float, wait: float) -> tuple[str, str]:
    if peak >= HEAVY:
        more = " More than one CPU's worth may be wanted: try dedicated:2." if peak >= FULL else ""
        return DEDICATED, f"The figures argue for a CPU of their own (dedicated): {HEAVY:.0%} of a CPU or more.{more}"
    if wait >= WAITING and _shared_with(samples, ours):
        return DEDICATED, (
            f"The figures argue for a CPU of their own (dedicated): they waited {WAITING:.0%} of the time or more "
            "for CPUs that others have, too."
        )
    if peak >= LIGHT:
        return POOL, (
            f"The figures argue for a CPU without vCPUs that several guests' emulator threads share (pool): "
            f"{LIGHT:.0%} to {HEAVY:.0%} of a CPU. vCPU 0's CPU (vcpu:0) does only if vCPU 0 can spare that much."
        )
    return FIRST_VCPU, f"The figures argue for no CPU of their own: below {LIGHT:.0%} of a CPU, vcpu:0 is enough."


def _is_idle(samples: Samples) -> bool:
    run = total([each for each in samples.loads if each.kind == VCPU], "run")
    return run is not None and run < IDLE


def _shared_with(samples: Samples, ours: Sequence[Load]) -> Cpus:
    """The CPUs of emulator threads that others have, too."""
    return frozenset(cpu for each in ours for cpu in each.allowed if samples.tenants.get(cpu))


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
    yield from _preemptions(samples, allowed)


def _preemptions(samples: Samples, allowed: Cpus) -> Iterator[str]:
    for each in samples.loads:
        if each.kind == VCPU and each.involuntary is not None and each.involuntary >= PUSHED:
            text = f"vCPU {each.number} was pushed off its CPU {each.involuntary:.1f} times a second"
            both = each.allowed & allowed
            yield text + (f"; emulator threads may run on its CPU {cpuset.format(both)}" if both else "")
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
    yield "an involuntary switch does not tell who came instead; other hours may bring another load"
