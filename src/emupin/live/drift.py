"""Drift: where a running guest's threads, cgroups and definitions are not what the plan says, and the likely cause.

Pure: `observe` reads the facts, `status` shows the assessment, and whoever mends a guest works from the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base.frozen import Frozen
from emupin.guest.domain import element
from emupin.guest.threads import EMULATOR, IOTHREAD, VHOST
from emupin.live import causes
from emupin.live.causes import Views

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emupin.engine.definition import Settled
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain, Status
    from emupin.guest.threads import Thread

    Cpus = frozenset[int]

THREAD, CGROUP, LIVE, PERSISTENT = "thread", "cgroup", "live XML", "persistent XML"
"""Where drift can be."""

DEFINED, TRANSIENT, UNKNOWN = "persistent", "transient", "unknown"
"""What is known of a guest's persistent definition: read, there is none, or it could not be read."""


class Group(Frozen):
    """A cpuset cgroup of the guest."""

    path: str
    cpus: Cpus
    """What was written to it."""
    effective: Cpus
    """What holds: on cgroup v2 possibly less."""


class Live(Frozen):
    """A running guest as it is found."""

    status: Status
    threads: tuple[Thread, ...]
    group: Group | None
    """Of the emulator threads; None where libvirt has no cpuset controller."""
    iothread_groups: Mapping[int, Group] = {}
    """Looked at where the plan has the iothreads follow."""
    persistence: str = UNKNOWN
    persistent: Domain | None = None
    """The persistent definition, where it was read."""
    claimed: Cpus | None = None
    """Where the hook decided to have the emulator threads, last time it was called for this run of the guest."""
    settled: Settled | None = None
    """What the persistent definition is to say, where it was read: a plan of its own, for it may have other vCPU pins.
    """


class Placed(Frozen):
    """A thread, and where it should be."""

    thread: Thread
    expected: Cpus | None
    """None: not ours, or the plan leaves it alone."""

    @property
    def strays(self) -> bool:
        return self.expected is not None and self.thread.allowed != self.expected


class Drift(Frozen):
    """One thing that is not as planned."""

    where: str
    what: str
    expected: Cpus | None
    """None: no pin at all; likewise below."""
    found: Cpus | None
    cause: str
    """The likely one, in plain words."""
    tid: int | None = None


class Assessment(Frozen):
    """A running guest against its plan."""

    live: Live
    plan: Plan
    threads: tuple[Placed, ...]
    drifts: tuple[Drift, ...]

    @property
    def guest(self) -> Domain:
        return self.live.status.domain

    @property
    def live_pin(self) -> Cpus | None:
        return self.guest.emulatorpin

    @property
    def persistence(self) -> str:
        return self.live.persistence

    @property
    def persistent_pin(self) -> Cpus | None:
        """None where there is none, or it is not known: see `persistence`."""
        return self.live.persistent.emulatorpin if self.live.persistent else None

    @property
    def problem(self) -> str:
        """Why a rule takes the guest and yet no plan comes of it; empty where all is well."""
        if not self.plan.failed:
            return ""
        change = causes.plan_change(self.guest, self.live.persistent)
        return f"{self.plan.reason}" + (f" ({change})" if change else "")

    @property
    def in_line(self) -> bool:
        return not self.drifts and not self.plan.failed


def assess(live: Live, plan: Plan) -> Assessment:
    """Compare. Threads that no rule takes, or that the plan keeps as they are, have no drift."""
    stored = tuple(_stored_drifts(live))
    if plan.cpus is None:
        return Assessment(live, plan, tuple(Placed(thread, None) for thread in live.threads), stored)
    placed = tuple(Placed(thread, expected(thread, plan)) for thread in live.threads)
    guest = live.status.domain
    drifts = tuple(drift for subject in _subjects(live, guest, plan, plan.cpus) for drift in _drifts(subject, plan))
    return Assessment(live, plan, placed, drifts + stored)


def expected(thread: Thread, plan: Plan) -> Cpus | None:
    """Where the plan has a thread; None where it is not ours, or left alone."""
    if thread.kind == IOTHREAD and not plan.follow_iothreads:
        return None
    cpus = {EMULATOR: plan.cpus, IOTHREAD: plan.cpus, VHOST: plan.vhost or plan.cpus}
    return cpus.get(thread.kind)


class _Subject(Frozen):
    """The emulator threads, or one iothread with its workers: what is in one cgroup."""

    group_name: str
    confined: Cpus
    """What the cgroup is to have."""
    threads: tuple[Thread, ...]
    group: Group | None
    views: Views

    @property
    def element(self) -> str:
        of_whom = f" of {self.group_name}" if self.views.command == "iothreadpin" else ""
        return f"<{self.views.command}>{of_whom}"


def _subjects(live: Live, definition: Domain, plan: Plan, planned: Cpus) -> Iterator[_Subject]:
    """What is pinned in one `definition` of the guest: each has iothreads of its own."""
    guest, persistent = live.status.domain, live.persistent
    claimed, change = live.claimed, causes.plan_change(guest, persistent)

    def views(command: str, threads: tuple[Thread, ...], group: Group | None, live_pin: Cpus | None,
              stored: Cpus | None) -> Views:  # fmt: skip
        right = bool(threads) and all(thread.allowed == expected(thread, plan) for thread in threads)
        known = live.persistence == DEFINED
        return Views(
            command,
            planned,
            claimed,
            group.cpus if group else None,
            group.effective if group else None,
            live_pin,
            stored,
            known,
            right,
            live.status.pid,
            change,
        )

    mine = tuple(thread for thread in live.threads if thread.kind in (EMULATOR, VHOST))
    stored = persistent.emulatorpin if persistent else None
    covers = planned | (plan.vhost or planned)
    yield _Subject(
        "emulator", covers, mine, live.group, views("emulatorpin", mine, live.group, guest.emulatorpin, stored)
    )
    for number in definition.iothreads if plan.follow_iothreads else ():
        mine = tuple(thread for thread in live.threads if thread.kind == IOTHREAD and thread.number == number)
        group, pin = live.iothread_groups.get(number), guest.iothreadpins.get(number)
        stored = persistent.iothreadpins.get(number) if persistent else None
        yield _Subject(f"iothread{number}", planned, mine, group, views("iothreadpin", mine, group, pin, stored))


def _drifts(subject: _Subject, plan: Plan) -> Iterator[Drift]:
    views, planned = subject.views, subject.views.planned
    for thread in subject.threads:
        wanted = expected(thread, plan) or planned
        if thread.allowed != wanted:
            cause = causes.of_thread(thread, views)
            what = f"{thread.kind} thread {thread.name!r} ({thread.tid})"
            yield Drift(THREAD, what, wanted, thread.allowed, cause, thread.tid)
    group, covers = subject.group, subject.confined
    if group and group.cpus != covers:
        yield Drift(CGROUP, f"cpuset.cpus of {subject.group_name}", covers, group.cpus, causes.of_group(views))
    elif group and group.effective != covers:
        what = f"cpuset.cpus.effective of {subject.group_name}"
        yield Drift(CGROUP, what, covers, group.effective, causes.FEWER_ABOVE)
    if plan.pin is not None and views.live != planned:
        yield Drift(LIVE, subject.element, planned, views.live, causes.of_live(views))


def _stored_drifts(live: Live) -> Iterator[Drift]:
    """Where the persistent definition does not say what its own plan wants."""
    settled, stored = live.settled, live.persistent
    if settled is None or stored is None or not settled.plan.persist:
        return
    planned, there = settled.plan.pin, stored.pins
    for key, pin in settled.leaving.items():
        yield Drift(PERSISTENT, element(key), pin, there[key], settled.reasons[key])
    for subject in _subjects(live, stored, settled.plan, planned) if planned else ():
        if subject.views.persistent != planned:
            cause = causes.of_persistent(subject.views)
            yield Drift(PERSISTENT, subject.element, planned, subject.views.persistent, cause)
