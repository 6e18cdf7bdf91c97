"""Guests that start one after the other on one host: what each finds of its CPUs, and how many more would fit."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.checks import named
from emupin.engine.plan import plan
from emupin.engine.situation import USES, Others, all_of, floating_vcpus, pinned_vcpus
from emupin.policy.values import DEDICATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain
    from emupin.live.facts import Facts
    from emupin.policy.values import Policy

    Cpus = frozenset[int]


class Room(Frozen):
    """How many more guests of one kind would get CPUs of their own."""

    rule: str
    like: str
    """The name of the last guest that the rule took: the next ones are like it."""
    more: int


class Capacity(Frozen):
    """What is left of a host when all guests have started."""

    pool: Cpus
    alone: Cpus
    """Of the pool: held by one guest alone."""
    free: dict[str, Cpus]
    """Of the pool: those that `dedicated` could still take, by NUMA node; `?` where it is not known."""
    rooms: tuple[Room, ...]
    ran_out: str
    """The first guest that found no CPU for itself, and why; empty where each did."""


class Company:
    """The guests that have started so far, beside those that run on the host already. Nothing is kept on disk."""

    def __init__(self, policy: Policy, facts: Facts) -> None:
        self.policy, self.facts = policy, facts
        self.uses: dict[str, dict[str, Cpus]] = {use: {} for use in USES}
        self.names = dict(facts.of_all.names)
        self.last: dict[str, Domain] = {}
        """Of each rule that gives guests CPUs of their own, the last guest that it took."""
        self.ran_out = ""

    def others(self, guest: Domain, name: str) -> Others:
        """What all others have, for the guest `guest` that is known by its UUID, or else by `name`."""
        return self._beside(self.facts.others(guest), guest.uuid or name)

    def everybody(self, key: str = "") -> Others:
        """What all but the guest `key` have in the end."""
        return self._beside(self.facts.of_all, key)

    def _beside(self, there: Others, key: str) -> Others:
        uses = {use: {**getattr(there, use), **self.uses[use]} for use in USES}
        for by_guest in uses.values():
            by_guest.pop(key, None)
        return there.replace(**uses, names=self.names)

    def decide(self, guest: Domain, name: str) -> Plan:
        """Decide for the next guest; it starts, unless it is refused."""
        decided = plan(guest, self.policy, self.facts.host, self.others(guest, name))
        alone = [attempt for attempt in decided.attempts if attempt.placement.word == DEDICATED]
        if decided.rule and alone:
            self.last[decided.rule] = guest
            if alone[0].problem and not self.ran_out:
                self.ran_out = f"{name}: {alone[0].placement.text}: {alone[0].problem}"
        if not (decided.failed and decided.on_failure == "refuse"):
            self._start(guest, guest.uuid or name, decided)
        return decided

    def _start(self, guest: Domain, key: str, decided: Plan) -> None:
        host, cpus = self.facts.host, decided.after(guest) or guest.unpinned or frozenset()
        everywhere = cpus | (decided.vhost or frozenset())
        follow = decided.follow_iothreads and decided.cpus is not None and guest.iothreads
        has = {
            "vcpus": all_of(pinned_vcpus(guest, host)),
            "floating": frozenset().union(*(pin for pin in floating_vcpus(guest, host).values() if pin)),
            "iothreads": cpus if follow else frozenset().union(*guest.iothreadpins.values()),
            "dedicated": decided.alone,
            "shared": everywhere - decided.alone,
        }
        for use, those in has.items():
            if those:
                self.uses[use][key] = those
        self.names[key] = guest.name

    def capacity(self) -> Capacity:
        """What is left; nobody is added by asking."""
        pool, host = self.policy.pool or frozenset(), self.facts.host
        there = self.everybody()
        left = pool - all_of(there.vcpus, there.dedicated, there.shared) - self.policy.reserved
        free: dict[str, set[int]] = {}
        for cpu in left if host is None else left & host.online:
            node = host.node_of(cpu) if host else None
            free.setdefault("?" if node is None else str(node), set()).add(cpu)
        return Capacity(
            pool=pool,
            alone=pool & all_of(there.dedicated),
            free={node: frozenset(free[node]) for node in sorted(free)},
            rooms=tuple(Room(rule, guest.name, self._more(guest, rule)) for rule, guest in self.last.items()),
            ran_out=self.ran_out,
        )

    def _more(self, guest: Domain, rule: str) -> int:
        """How many guests like `guest` could still start with CPUs of their own."""
        rehearsal, count = Company(self.policy, self.facts), 0
        rehearsal.uses = {use: dict(self.uses[use]) for use in USES}
        while True:
            twin = guest.replace(uuid=f"{rule} {count}", emulatorpin=None)
            if not rehearsal.decide(twin, "").dedicated:
                return count
            count += 1


def lines(capacity: Capacity) -> list[str]:
    """The capacity in sentences."""
    told = [f"the pool runs out at {capacity.ran_out}"] if capacity.ran_out else []
    if capacity.pool:
        free = "; ".join(f"{named(cpus)} on node {node}" for node, cpus in capacity.free.items()) or "none"
        told.append(
            f"of the pool {cpuset.format(capacity.pool)}: {len(capacity.alone)} of {len(capacity.pool)} CPUs held by "
            f"one guest alone, free: {free}"
        )
    for room in capacity.rooms:
        guests = f"{room.more:,} more guest{'' if room.more == 1 else 's'}"
        told.append(f"rule {room.rule}: {guests} like {room.like} would get CPUs of their own")
    return told


def to_json(capacity: Capacity) -> dict[str, object]:
    return {
        "pool": cpuset.format(capacity.pool),
        "held_alone": cpuset.format(capacity.alone),
        "free": {node: cpuset.format(cpus) for node, cpus in capacity.free.items()},
        "more": [{"rule": room.rule, "like": room.like, "guests": room.more} for room in capacity.rooms],
        "ran_out": capacity.ran_out or None,
    }
