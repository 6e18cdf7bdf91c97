"""The account of thefts: scheduling events in their order, turned into who had a vCPU's CPU while it wanted to run.

Pure. A vCPU *waits* from the moment it is pushed off its CPU, or woken, until it runs again. Each stretch in which
another thread has that CPU meanwhile is a *theft*: a preemption where the vCPU had been running, a block where it had
been asleep. Time of the idle thread is nobody's: it counts for the vCPU's delay alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin.trace.events import LOST, SWITCH, WAKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.trace.events import Event

LIMITS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
"""Nanoseconds: the upper ends of the histogram's classes, the last of which has none."""
IDLE = 0


@dataclass
class Tally:
    """What one thread took from one vCPU."""

    preemptions: int = 0
    blocks: int = 0
    stolen: int = 0
    """Nanoseconds."""
    longest: int = 0
    cpus: set[int] = field(default_factory=set)
    lengths: list[int] = field(default_factory=lambda: [0] * (len(LIMITS) + 1))

    def add(self, length: int, cpu: int, woken: bool) -> None:
        if woken:
            self.blocks += 1
        else:
            self.preemptions += 1
        self.stolen += length
        self.longest = max(self.longest, length)
        self.cpus.add(cpu)
        self.lengths[sum(length >= limit for limit in LIMITS)] += 1


@dataclass
class Delays:
    """How long a vCPU waited, once for each time that it was pushed off, or woken."""

    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)


@dataclass
class VcpuAccount:
    """One vCPU's."""

    thieves: dict[int, Tally] = field(default_factory=dict)
    """By thread id."""
    gaps: Delays = field(default_factory=Delays)
    """From being pushed off to running again."""
    delays: Delays = field(default_factory=Delays)
    """From waking to running."""


@dataclass
class Wait:
    since: int
    cpu: int
    woken: bool


class Account:
    """Fed with events in the order of their times."""

    def __init__(self, vcpus: Iterable[int], whole: frozenset[int]) -> None:
        """The vCPUs' thread ids, and the CPUs of which every switch is recorded."""
        self.vcpus: dict[int, VcpuAccount] = {tid: VcpuAccount() for tid in vcpus}
        self.whole = whole
        self.names: dict[int, bytes] = {}
        """Of every thread that had a CPU, as it was called when it came; empty where that was not seen."""
        self.new: dict[int, bytes] = {}
        """Thieves that nobody has looked at yet, or that have another name since; whoever looks empties it."""
        self.called: dict[int, bytes] = {}
        """Every thief's name when it was last charged."""
        self.waits: dict[int, Wait] = {}
        """By the thread id of the vCPU."""
        self.running: dict[int, tuple[int, int]] = {}
        """Thread and since when, by CPU."""
        self.lost = 0
        """How often the kernel had overwritten events."""
        self.holes = 0
        """How often a CPU's events do not fit together: the kernel recorded nothing there for a while."""

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.what == SWITCH:
                self._switch(event)
            elif event.what == WAKING:
                self._wake(event)
            elif event.what == LOST:
                self._forget(event.cpu)

    def finish(self, at: int) -> None:
        """Close the account: whoever has a waiting vCPU's CPU took it until `at`, at least."""
        for tid, wait in self.waits.items():
            self._charge_last(tid, wait, at)
            self._end(tid, wait, at)
        self.waits.clear()

    def _wake(self, event: Event) -> None:
        """A thread that is woken before it has left its CPU goes on there: it does not wait."""
        tid = event.tid
        if tid in self.vcpus and tid not in self.waits and self.running.get(event.cpu, (IDLE, 0))[0] != tid:
            self.waits[tid] = Wait(event.at, event.cpu, woken=True)

    def _switch(self, event: Event) -> None:
        cpu, at = event.cpu, event.at
        running, since = self.running.get(cpu, (event.tid, 0))
        self.waits.pop(event.tid, None)  # It ran: that it was woken once more means nothing.
        if running != event.tid and cpu in self.whole:
            self._skip(cpu, at)
            running, since = event.tid, at
        for tid, wait in self.waits.items():
            if wait.cpu == cpu:
                taker = running if self._is_known(wait) else event.tid
                self._charge(tid, wait, taker, since, at)
        if event.next_tid in self.waits:
            wait = self.waits.pop(event.next_tid)
            if wait.cpu != cpu:  # It found another CPU.
                self._charge_last(event.next_tid, wait, at)
            self._end(event.next_tid, wait, at)
        if event.wants and event.tid in self.vcpus:
            self.waits[event.tid] = Wait(at, cpu, woken=False)
        self.running[cpu] = event.next_tid, at
        self.names.setdefault(event.tid, b"")
        self.names[event.next_tid] = event.next_name

    def _is_known(self, wait: Wait) -> bool:
        """Whether `running` is the thread that has the CPU: where not every switch is seen, the one that came last.

        That is whoever pushed the vCPU off; of the time when it slept nothing is known.
        """
        return wait.cpu in self.whole or not wait.woken

    def _charge_last(self, tid: int, wait: Wait, until: int) -> None:
        if wait.cpu in self.running and self._is_known(wait):
            self._charge(tid, wait, *self.running[wait.cpu], until)

    def _charge(self, tid: int, wait: Wait, thief: int, since: int, until: int) -> None:
        length = until - max(since, wait.since)
        if thief not in (IDLE, tid) and length > 0:
            self.vcpus[tid].thieves.setdefault(thief, Tally()).add(length, wait.cpu, wait.woken)
            name = self.names.get(thief, b"")
            if self.called.get(thief) != name:
                self.called[thief] = self.new[thief] = name

    def _end(self, tid: int, wait: Wait, at: int) -> None:
        account = self.vcpus[tid]
        (account.delays if wait.woken else account.gaps).add(at - wait.since)

    def _skip(self, cpu: int, at: int) -> None:
        """Nobody is charged for a hole; a vCPU that waited before it is taken to wait still, from now on."""
        self.holes += 1
        for wait in self.waits.values():
            if wait.cpu == cpu:
                wait.since = at

    def _forget(self, cpu: int) -> None:
        """Events of `cpu` were overwritten: what is not known is not counted."""
        self.lost += 1
        self.running.pop(cpu, None)
        for tid in [tid for tid, wait in self.waits.items() if wait.cpu == cpu]:
            del self.waits[tid]


def total(tallies: Iterable[Tally]) -> Tally:
    """Of several threads together."""
    found = Tally()
    for each in tallies:
        found.preemptions += each.preemptions
        found.blocks += each.blocks
        found.stolen += each.stolen
        found.longest = max(found.longest, each.longest)
        found.cpus |= each.cpus
        found.lengths = [sum(pair) for pair in zip(found.lengths, each.lengths)]
    return found
