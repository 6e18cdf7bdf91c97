"""Who occupies which CPU: running guests, promises and starts, and the arithmetic on them. Nothing is read here.

What a guest may occupy is the union of three: what it was promised, what libvirt's status file says, and where its
emulator threads were seen. What it had alone stays its own until all three agree that it has left.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen
from emupin.base.mask import from_mask, to_mask
from emupin.engine.situation import USES, Others, pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain

    Cpus = frozenset[int]
    Stamp = tuple[int, int, int]
    Record = tuple[str, Stamp, int, tuple[int, ...], int, int, int, bool]  # The fields of a RunningGuest.

NEVER = (0, 0, 0)
"""The stamp of a status file that is to be read again."""

UNSEEN, UNKNOWN = -1, -2
"""In place of CPUs: nobody has looked since the status file changed; there was no process, or no telling."""

PENDING_SECONDS = 900.0
FILTERED_SECONDS = 60.0
"""How long a guest counts that does not run yet: a start that never came, a migration that was cancelled."""

LONG_AGO = float("-inf")
"""When a claim was made that ends as soon as its guest does not run, or that nobody has decided on: see `adoption`."""

REMEMBERED = 4096
"""Of how many stopped guests to remember what they held."""


class RunningGuest(Frozen):
    """A running guest, by its status file and its threads. CPU sets are bit masks."""

    uuid: str
    stamp: Stamp
    """Of the file: modification time in nanoseconds, inode, size in bytes."""
    pid: int
    vcpus: tuple[int, ...]
    """The different pins of its vCPUs; 0 is any CPU."""
    iothreads: int
    """The pins of its iothreads together."""
    recorded: int
    """Where libvirt's file says that the emulator threads are; 0 where it says nothing."""
    seen: int = UNSEEN
    """Where the emulator threads were allowed when they were looked at last."""
    floats: bool = False
    """Nobody had confined them: they were allowed wherever the guest as a whole may run."""

    @property
    def occupied(self) -> int:
        """Where the emulator threads may be, as far as they are confined at all."""
        return self.recorded | (self.seen if self.seen > 0 and not self.floats else 0)


class Claim(Frozen):
    """The CPUs of one guest's emulator threads."""

    cpus: int
    """0 for a guest whose emulator threads are left where they are."""
    dedicated: bool
    since: float
    """Seconds on the boot clock."""
    former: int = 0
    """What a running guest was promised before, and may still be on."""
    former_alone: int = 0
    """What it had alone before, and has not left."""
    vhost: int = 0
    """Of its vhost workers, where they are apart from the emulator threads."""
    vhost_dedicated: bool = False

    @property
    def alone(self) -> int:
        """What nobody else may have."""
        return self.former_alone | self.promised_alone

    @property
    def promised_alone(self) -> int:
        """What it is to have alone."""
        return (self.cpus if self.dedicated else 0) | (self.vhost if self.vhost_dedicated else 0)

    def is_leaving(self, recorded: int) -> bool:
        """Whether threads may have to leave CPUs yet, other than those that libvirt has `recorded`."""
        return (self.former | self.former_alone) & ~recorded != 0 or self.former_alone & self.cpus != 0

    def settled(self, running: RunningGuest) -> Claim:
        """What is left of it once the threads of `running`, which has it, were looked at.

        Where they are exactly as promised they have left what was theirs alone, though it be among it. Where there was
        no telling, libvirt's record of the new place must do: it is made when the threads are there.
        """
        left = ~running.occupied
        if running.seen == UNKNOWN and running.recorded != self.cpus:
            return self
        if self.cpus in (running.seen, running.recorded):
            left |= self.cpus
        if running.seen == self.cpus | self.vhost:
            left |= running.seen
        return self.replace(former=self.former & ~left, former_alone=self.former_alone & ~left)


class Start(Frozen):
    """What is known of a guest that does not run yet, from its domain XML."""

    vcpus: tuple[int, ...]
    """As those of a RunningGuest."""
    iothreads: int
    emulator: int
    """Where libvirt will put the emulator threads."""
    since: float
    """Seconds on the boot clock."""
    name: str = ""
    """The guest's."""


class Book:
    """All that is known, for one boot of the host."""

    def __init__(self, now: float = 0.0, host: Host | None = None) -> None:
        self.now = now
        """Seconds on the boot clock."""
        self.host = host
        """By whose cores a vCPU is pinned or floats; without one it is pinned where it has one CPU."""
        self._cores: tuple[int, ...] | None = None
        self.records: dict[str, Record] = {}
        """The running guests by status file name; plain tuples, for there may be a thousand."""
        self.claims: dict[str, Claim] = {}
        """By UUID."""
        self.starting: dict[str, Start] = {}
        """By UUID."""
        self.in_place = 0
        """The CPUs that the guest which is asked about has alone, and where its threads are, all as promised."""
        self.history: dict[str, int] = {}
        """What guests that are gone held, by UUID, the latest last."""

    @property
    def known(self) -> frozenset[str]:
        """The UUIDs of guests that have something, will have, or had: for all others what guests have is the same."""
        return frozenset(self.running).union(self.claims, self.starting, self.history)

    @property
    def running(self) -> set[str]:
        """The UUIDs of the guests that run."""
        return {record[0] for record in self.records.values()}

    def others(self, uuid: str | None, cpus: Cpus) -> Others:
        """What the guests other than `uuid` have of `cpus`."""
        mask = to_mask(cpus)
        anywhere = to_mask(self.host.balanced(self.host.online)) if self.host else mask
        uses: dict[str, dict[str, int]] = {use: {} for use in USES}
        for owner, vcpus, iothreads in self._threads():
            if owner != uuid:
                for pin in vcpus:
                    if (pin or anywhere) & mask:
                        _add(uses["vcpus" if self._is_pinned(pin) else "floating"], owner, (pin or anywhere) & mask)
                _add(uses["iothreads"], owner, iothreads & mask)
        for owner, used in self._emulators(uuid).items():
            claim = self.claims.get(owner)
            alone = claim.alone if claim else 0
            if owner != uuid and (used | alone) & mask:
                _add(uses["dedicated"], owner, alone & mask)
                _add(uses["shared"], owner, used & mask & ~alone)
        mine = self.claims.get(uuid or "")
        previous = mine.cpus if mine and mine.cpus else self.history.get(uuid or "", 0)
        found: dict[str, Any] = {use: {owner: from_mask(cpus) for owner, cpus in uses[use].items()} for use in USES}
        apart = from_mask(mine.vhost) if mine else frozenset()
        names = self._names(frozenset().union(*found.values()))
        return Others(**found, previous=from_mask(previous) or None, vhost=apart or None, names=names)

    def _names(self, uuids: frozenset[str]) -> dict[str, str]:
        """The names of those of the guests that run or start."""
        found = {uuid: start.name for uuid, start in self.starting.items() if uuid in uuids and start.name}
        for name, record in self.records.items():
            if record[0] in uuids:
                found[record[0]] = name[:-4]
        return found

    def _threads(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Where vCPUs and iothreads are, or will be: each guest with the pins of either."""
        for owner, _, _, vcpus, iothreads, *_ in self.records.values():
            yield owner, vcpus, iothreads
        for owner, start in self.starting.items():
            yield owner, start.vcpus, start.iothreads

    def _is_pinned(self, pin: int) -> bool:
        """As `of_one_core` says, of masks; 0 is any CPU."""
        if not pin & (pin - 1):
            return pin > 0
        if self._cores is None:
            self._cores = tuple(map(to_mask, self.host.cores)) if self.host else ()
        return sum(pin & core != 0 for core in self._cores) == 1

    def _emulators(self, uuid: str | None) -> dict[str, int]:
        """Where emulator threads may be, or will be, by UUID.

        What the guest `uuid` has alone it does not lose to a mere record: libvirt starts guests where they were once.
        Nor does it lose it to threads once it is in place: whoever comes later is the one to go.
        Nor does a record count of a guest that was promised CPUs, and is not here yet or was seen on them: that is
        where libvirt starts it, for the moment until the hook has moved it, and it may be all of the pool.
        """
        mine = self.claims.get(uuid or "")
        kept = ~mine.alone if mine else -1
        held = ~self.in_place
        found = {owner: start.emulator & kept for owner, start in self.starting.items() if not self._promised(owner)}
        for owner, _, _, _, _, recorded, seen, floats in self.records.values():
            if floats or seen < 0:
                found[owner] = recorded & kept
            else:
                promised = self._promised(owner) if recorded & ~seen else 0
                found[owner] = seen & held if promised and not seen & ~promised else recorded & kept | seen & held
        for owner, claim in self.claims.items():
            found[owner] = found.get(owner, 0) | claim.cpus | claim.vhost | claim.former
        return found

    def _promised(self, uuid: str) -> int:
        """The CPUs that the guest's emulator threads and workers were given; 0 where they stay where they are."""
        claim = self.claims.get(uuid)
        return claim.cpus | claim.vhost if claim and claim.cpus else 0

    def hurry(self) -> None:
        """What is noted from here on counts for FILTERED_SECONDS alone, unless it is noted again."""
        self.now -= PENDING_SECONDS - FILTERED_SECONDS

    def claim(
        self, uuid: str, cpus: Cpus, dedicated: bool, vhost: Cpus | None = None, vhost_dedicated: bool = False
    ) -> None:
        """Give `cpus` to the guest `uuid`, and `vhost` to its vhost workers if apart, instead of what it had."""
        self._promise(uuid, to_mask(cpus), dedicated, self.now, to_mask(vhost or ()), vhost_dedicated)

    def _promise(
        self, uuid: str, cpus: int, dedicated: bool, since: float, vhost: int = 0, vhost_dedicated: bool = False
    ) -> None:
        before, former, alone = self.claims.get(uuid), 0, 0
        if before and uuid in self.running:
            former, alone = (before.cpus | before.vhost | before.former) & ~(cpus | vhost), before.alone
        claim = Claim(cpus, dedicated, since, former, 0, vhost, vhost_dedicated)
        self.claims[uuid] = claim.replace(former_alone=alone & ~claim.promised_alone)

    def expect(self, guest: Domain) -> None:
        """Note what the guest will have, until it runs and its status file says so."""
        if guest.uuid and guest.uuid not in self.running:
            self.starting[guest.uuid] = Start(*pinned(guest), recorded(guest), self.now, guest.name)

    def release(self, uuid: str) -> None:
        """Take back what the guest `uuid` has, and remember it.

        As long as it runs all the same, its threads may still be there: nobody gets those CPUs until it has left them.
        """
        self.starting.pop(uuid, None)
        claim = self.claims.get(uuid)
        if claim and claim.cpus:
            self.history.pop(uuid, None)
            self.history[uuid] = claim.cpus
            for oldest in list(self.history)[:-REMEMBERED]:
                del self.history[oldest]
        if claim and uuid in self.running:
            self._promise(uuid, 0, False, LONG_AGO)
        else:
            self.claims.pop(uuid, None)

    def expire(self) -> None:
        """Forget the starts and promises that nothing has come of for PENDING_SECONDS."""
        running, oldest = self.running, self.now - PENDING_SECONDS
        self.starting = {
            uuid: start for uuid, start in self.starting.items() if uuid not in running and start.since >= oldest
        }
        for uuid, claim in list(self.claims.items()):
            if uuid not in running and claim.since < oldest:
                self.release(uuid)
            elif uuid not in running and claim.former | claim.former_alone:
                self.claims[uuid] = claim.replace(former=0, former_alone=0)


def pinned(guest: Domain) -> tuple[tuple[int, ...], int]:
    """The CPUs of a guest's vCPUs and iothreads, in the form of a RunningGuest."""
    vcpus = {to_mask(cpus or ()) for cpus in {cpus for _, cpus in pins(guest)}}
    return tuple(sorted(vcpus)), to_mask(frozenset().union(*{*guest.iothreadpins.values()}))


def recorded(guest: Domain) -> int:
    """Where libvirt puts the emulator threads: without a pin of their own, where the vCPUs are confined to.

    Source: qemuProcessSetupEmulator, which falls back on `def->cpumask`.
    """
    return to_mask(guest.emulatorpin or guest.unpinned or ())


def _add(by_guest: dict[str, int], uuid: str, mask: int) -> None:
    if mask:
        by_guest[uuid] = by_guest.get(uuid, 0) | mask
