"""One trace of a running guest: the kernel records, we read in rounds, until the time is over or the guest is."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base.errors import TraceError
from emupin.trace.account import Account
from emupin.trace.events import SWITCH, Sequence
from emupin.trace.instance import Instance, started
from emupin.trace.thieves import Roster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from emupin.base.interruption import Interruption
    from emupin.guest.domain import Status
    from emupin.guest.threads import Thread
    from emupin.trace.events import Event

    Cpus = frozenset[int]

ROUND = 0.1
"""Seconds between two looks: the buffers hold more than that."""
NARROW = 4
"""CPUs of one vCPU up to which all that happens there is recorded; a vCPU that floats is followed by itself."""

SPARE = 64
"""Files that a process has open besides the CPUs' pipes."""


@dataclass(frozen=True)
class Recorded:
    """What a trace brought, before anybody makes sense of it."""

    account: Account
    roster: Roster
    seconds: float
    lost: int
    """Events that the buffers had no room for."""
    holes: int
    """Times that the kernel recorded nothing on a CPU for a while, though its buffer had room."""
    ended: bool
    """The guest ended meanwhile."""
    whole: Cpus
    """The CPUs of which every switch was seen."""
    own: Cpus
    """The CPUs that this process kept to."""


class Recording:
    """A trace under way. Raises TraceError wherever the kernel does not let it."""

    def __init__(self, root: str, name: str, status: Status, vcpus: Iterable[Thread]) -> None:
        allowed = {thread.tid: thread.allowed for thread in vcpus}
        self.guests = frozenset[int]().union(*allowed.values())
        self.whole = frozenset[int]().union(*(cpus for cpus in allowed.values() if len(cpus) <= NARROW))
        self.root, self.pid, self.born = root, status.pid, started(root, status.pid)
        self.account, self.roster = Account(allowed, self.whole), Roster(root, name, status)
        self.sequence = Sequence()
        self.seen = 0
        """Switches of this very process: who sees none has recorded nothing at all."""

    def run(self, seconds: float, interruption: Interruption, tell: Callable[[float, Account], None]) -> Recorded:
        """Record for so many seconds, or until the guest ends or a signal is noted."""
        own = keep_off(self.guests)
        cpus = self.guests | own
        need_descriptors(len(cpus))
        with Instance(self.root, frozenset((*self.account.vcpus, os.getpid())), self.whole, cpus) as instance:
            begin, start = instance.now(), time.monotonic()
            while (left := start + seconds - time.monotonic()) > 0 and self._goes_on(interruption):
                time.sleep(min(ROUND, left))
                self._take(self.sequence.take(instance.read()))
                tell(time.monotonic() - start, self.account)
            end = instance.now()
            instance.stop()
            self._take([*self.sequence.take(instance.read()), *self.sequence.rest()])
            lost = instance.lost()
        self.account.finish(end)
        self._take([])
        self._check_witness(instance.folder)
        ended = started(self.root, self.pid) != self.born
        holes = self.account.holes
        return Recorded(self.account, self.roster, (end - begin) / 1e9, lost, holes, ended, self.whole, own)

    def _goes_on(self, interruption: Interruption) -> bool:
        return interruption.noted is None and started(self.root, self.pid) == self.born

    def _take(self, events: list[Event]) -> None:
        me = os.getpid()
        self.account.feed(events)
        self.roster.look(self.account.new)
        self.account.new.clear()
        self.seen += sum(event.what == SWITCH and event.tid == me for event in events)

    def _check_witness(self, folder: str) -> None:
        """That no thief was seen means nothing if nothing was."""
        if not self.seen:
            what = "the kernel recorded nothing, not even this process"
            raise TraceError(folder, what, "something else may have switched tracing off")


def keep_off(guests: Cpus) -> Cpus:
    """Keep this process off the CPUs that it watches, where it has others; the CPUs that it may use from now on."""
    mine = frozenset(os.sched_getaffinity(0))
    if mine - guests:
        os.sched_setaffinity(0, mine - guests)
    return (mine - guests) or mine


def need_descriptors(count: int) -> None:
    """A pipe for each CPU: on the largest hosts that is more than a process may open at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE if hard == resource.RLIM_INFINITY else min(count + SPARE, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
