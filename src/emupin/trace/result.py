"""What a trace found, as values: for each vCPU who took its CPU, how often, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.guest.threads import EMULATOR, IOTHREAD, VCPU, VHOST
from emupin.trace.account import total
from emupin.trace.thieves import OWN, Thief

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emupin.guest.threads import Thread
    from emupin.trace.account import Delays, Tally, VcpuAccount
    from emupin.trace.recording import Recorded


@dataclass(frozen=True)
class Theft:
    """What one kind of thread took from one vCPU."""

    thief: Thief
    preemptions: int
    """How often it came to the CPU while the vCPU would have gone on."""
    blocks: int
    """How often it had the CPU after the vCPU was woken."""
    stolen: float
    """Seconds."""
    longest: float
    cpus: str
    lengths: tuple[int, ...]
    """How many there were of each length, by `account.LIMITS`."""

    @property
    def count(self) -> int:
        return self.preemptions + self.blocks

    @property
    def is_emulator(self) -> bool:
        """Whether a placement of the emulator decides where these threads run."""
        return self.thief.whose == OWN and self.thief.kind in (EMULATOR, VHOST)

    @property
    def is_iothread(self) -> bool:
        return self.thief.whose == OWN and self.thief.kind == IOTHREAD


@dataclass(frozen=True)
class Waits:
    """Times that a vCPU waited for a CPU."""

    count: int
    total: float
    """Seconds."""
    longest: float

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Vcpu:
    """One vCPU over the time of the trace."""

    number: int
    tid: int
    allowed: str
    """A CPU list."""
    gaps: Waits
    """From being pushed off its CPU to running again."""
    delays: Waits
    """From being woken to running."""
    thefts: tuple[Theft, ...]
    """The largest first."""
    involuntary: int | None = None
    """The kernel's own count of involuntary switches, which the gaps must come to."""
    run: float | None = None
    """Part of the time on a CPU (schedstat)."""
    wait: float | None = None
    """Part of the time ready to run, and not running (schedstat)."""


@dataclass(frozen=True)
class Trace:
    """One run of `emupin trace`."""

    guest: str
    uuid: str
    made: str
    """When, RFC 3339."""
    seconds: float
    emulator: str
    """The CPUs on which the guest's emulator threads and vhost workers may run."""
    vcpus: tuple[Vcpu, ...]
    lost: int
    """Events that the kernel had no room for: all counts are too low by what was in them."""
    holes: int = 0
    """Times that the kernel recorded nothing on a CPU for a while: what happened then is not counted either."""
    remarks: tuple[str, ...] = ()

    def rate(self, count: float) -> float:
        """By the second."""
        return count / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Sum:
    """Thefts added up."""

    count: int
    stolen: float
    longest: float
    cpus: frozenset[int]
    lengths: tuple[int, ...]


def add_up(thefts: Iterable[Theft]) -> Sum:
    found = list(thefts)
    return Sum(
        sum(each.count for each in found),
        sum(each.stolen for each in found),
        max((each.longest for each in found), default=0.0),
        frozenset().union(*(cpuset.parse_kernel(each.cpus) for each in found)),
        tuple(map(sum, zip(*(each.lengths for each in found)))),
    )


def make(guest: str, uuid: str, made: str, threads: Sequence[Thread], found: Recorded) -> Trace:
    """The values of a recording; `threads` are all of the guest's."""
    emulator = frozenset().union(*(each.allowed for each in threads if each.kind in (EMULATOR, VHOST)))
    return Trace(
        guest,
        uuid,
        made,
        found.seconds,
        cpuset.format(emulator),
        tuple(_vcpu(each, found.account.vcpus[each.tid], found.roster.known) for each in threads if each.kind == VCPU),
        found.lost,
        found.holes,
    )


def _vcpu(thread: Thread, account: VcpuAccount, known: dict[int, Thief]) -> Vcpu:
    groups: dict[Thief, list[Tally]] = {}
    for tid, tally in account.thieves.items():
        groups.setdefault(known[tid], []).append(tally)
    thefts = [_theft(thief, total(tallies)) for thief, tallies in groups.items()]
    return Vcpu(
        thread.number or 0,
        thread.tid,
        cpuset.format(thread.allowed),
        _waits(account.gaps),
        _waits(account.delays),
        tuple(sorted(thefts, key=lambda each: (-each.stolen, each.thief.whose, each.thief.name))),
    )


def _theft(thief: Thief, tally: Tally) -> Theft:
    return Theft(
        thief,
        tally.preemptions,
        tally.blocks,
        tally.stolen / 1e9,
        tally.longest / 1e9,
        cpuset.format(tally.cpus),
        tuple(tally.lengths),
    )


def _waits(delays: Delays) -> Waits:
    return Waits(delays.count, delays.total / 1e9, delays.longest / 1e9)
