"""How busy a guest's threads were, made of several looks at it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin.guest.threads import EMULATOR, VHOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.live.observe import Observed
    from emupin.trace.result import Trace

    Cpus = frozenset[int]

OWN = "vCPU "
"""How the name of a vCPU of the same guest starts."""


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
    """Who else has the CPUs on which emulator threads may run; vCPUs of the same guest start with OWN."""
    trace: Trace | None = None
    """Who took the vCPUs' CPUs meanwhile, where the kernel let us see it."""


def measure(looks: Sequence[Observed], tenants: Mapping[int, tuple[str, ...]], trace: Trace | None = None) -> Samples:
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
        trace,
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
