"""Who holds which CPU: a ledger of claims, checked against the running guests whenever it is opened.

It adds what no guest shows yet, promises and starts; all else can be rebuilt, from threads first. One writer at a
time, and a claim is in the file before anybody acts on it. Of a thousand guests only those are looked at whose status
file has changed, or whose threads were not seen yet where claim and status file say.
"""

from __future__ import annotations

import time

from emupin.base.errors import HostError
from emupin.base.files import RUN, lock, make_private_folder
from emupin.base.mask import from_mask, to_mask
from emupin.base.system import os
from emupin.node import bookfile, runningguests
from emupin.node.book import LONG_AGO, NEVER, PENDING_SECONDS, UNKNOWN, UNSEEN, Book, Claim, RunningGuest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.engine.situation import Others
    from emupin.guest.domain import Domain
    from emupin.node.book import Record
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

__all__ = ["PENDING_SECONDS", "Claim", "Ledger", "from_mask", "to_mask"]


class Ledger(Book):
    """The claims below a root folder, open for one process while it is in the `with` statement.

    Raises HostError where it cannot be locked, or does not know which guests run.
    """

    def __init__(self, root: str, policy: Policy | None, host: Host | None = None) -> None:
        super().__init__(time.clock_gettime(time.CLOCK_BOOTTIME), host)
        self.root, self.policy = root, policy
        self.faults: tuple[str, ...] = ()
        """What is wrong with status files, a sentence each: what their guests have is not known in full."""
        self._written = bookfile.Written()
        self._looked_at: set[str] = set()
        """The status files of guests whose threads were looked at since the ledger was opened."""
        self._lock = -1

    @classmethod
    def look(cls, root: str, policy: Policy | None, host: Host | None = None) -> Ledger:
        """The claims as they stand, to be shown: nothing is locked, and nothing may be saved. Raises HostError."""
        ledger = cls(root, policy, host)
        ledger._open()
        return ledger

    def __enter__(self) -> Ledger:
        try:
            make_private_folder(self.root + RUN)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(f"{self.root}{RUN}/lock", flags, 0o600)
            lock(self._lock)
        except OSError as error:
            hint = "another hook may be stuck, or the file system full"
            raise HostError(f"{self.root}{RUN}/lock", f"cannot be locked: {error.strerror}", hint) from None
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def _open(self) -> None:
        """Load the file, and bring it up to date with the running guests. Raises HostError."""
        self._written = bookfile.load(self.root, self)
        newcomers = self._refresh()
        self.expire()
        if newcomers:
            self._adopt(newcomers)

    def save(self) -> None:
        """Write what has changed. Raises HostError."""
        try:
            bookfile.save(self.root, self, self._written)
        except OSError as error:
            path = self.root + bookfile.FILE
            raise HostError(path, f"cannot be written: {error.strerror}", "free some space in /run") from None

    @property
    def running_guests(self) -> dict[str, RunningGuest]:
        """The running guests by status file name."""
        return {name: RunningGuest(*record) for name, record in self.records.items()}

    # -- the running guests --------------------------------------------------------------------------------------------

    def _refresh(self) -> dict[str, Domain]:
        """Read status files that are new or changed, forget those that are gone; of the former, those without a claim.

        Raises HostError.
        """
        found: dict[str, Record] = {}
        newcomers = {}
        sections = self.policy.sections() if self.policy else frozenset()
        for name, stamp in runningguests.status_files(self.root):
            known = self.records.get(name)
            if known and known[1] == stamp:
                found[name] = known
                continue
            read = runningguests.read(self.root, name, stamp, sections)
            if read:
                running = read.running
                if known and (running.uuid, running.pid, running.recorded) == (known[0], known[2], known[5]):
                    running = running.replace(seen=known[6], floats=known[7])
                found[name] = tuple(running.__dict__.values())
                if read.guest is None:
                    self.faults += (read.fault,)
                elif running.uuid not in self.claims:
                    newcomers[name] = read.guest
        self.records = found
        return newcomers

    def _adopt(self, newcomers: dict[str, Domain]) -> None:
        """Running guests without a claim, whose ledger was lost or that started before us, keep what they have.

        Who does not know the policy cannot tell: they stay newcomers, for the next one to look at. Raises HostError.
        """
        if self.policy is None:
            for name in newcomers:
                self.records[name] = tuple(RunningGuest(*self.records[name]).replace(stamp=NEVER).__dict__.values())
            return
        from emupin.engine.hostcache import read_cached
        from emupin.node.adoption import adopt

        for name in newcomers:
            self._look_at(name)
        found = [(RunningGuest(*self.records[name]), guest) for name, guest in newcomers.items()]
        adopt(self, found, self.policy, self.host or read_cached(self.root))

    def _look_at(self, name: str) -> None:
        """See where the emulator threads of one guest are now."""
        running = runningguests.look_at(self.root, name, RunningGuest(*self.records[name]))
        self.records[name] = tuple(running.__dict__.values())
        self._looked_at.add(name)
        if running.uuid in self.claims:
            self.claims[running.uuid] = self.claims[running.uuid].settled(running)

    def look_again(self, uuid: str) -> None:
        """See where the emulator threads of the running guest are, though neither claim nor record tells of a move."""
        for name, record in list(self.records.items()):
            if record[0] == uuid:
                self._look_at(name)

    def others(self, uuid: str | None, cpus: Cpus) -> Others:
        """What the guests other than `uuid` have of `cpus`, after a look at the threads that may have moved."""
        for name, record in list(self.records.items()):
            if record[0] != uuid and name not in self._looked_at and self._is_unsettled(record):
                self._look_at(name)
        self.in_place = self._in_place(uuid) if uuid else 0
        return super().others(uuid, cpus)

    def _in_place(self, uuid: str) -> int:
        """The CPUs that the guest has alone and where its threads are; 0 where some are elsewhere than was promised.

        What was adopted nobody has promised: others may have been there before.
        """
        claim = self.claims.get(uuid)
        if not claim or not claim.promised_alone or claim.since == LONG_AGO:
            return 0
        name = next((name for name, record in self.records.items() if record[0] == uuid), None)
        if name is None:
            return 0
        from emupin.node import guestthreads

        self._look_at(name)
        _, _, pid, _, _, _, seen, floats = self.records[name]
        main = guestthreads.main_thread(self.root, pid)
        workers = guestthreads.vhost_workers(self.root, pid) if claim.vhost else 0
        astray = seen & ~(claim.cpus | claim.vhost) | main & ~claim.cpus | workers & ~claim.vhost
        return 0 if astray or floats or seen < 0 or main < 0 else claim.promised_alone & seen

    def _is_unsettled(self, record: Record) -> bool:
        """Whether threads may be elsewhere than claim and status file say, or may have left what they were seen on."""
        uuid, _, pid, _, _, recorded, seen, floats = record
        if seen == UNSEEN:
            return True
        claim = self.claims.get(uuid)
        if claim and claim.is_leaving(recorded) and seen != UNKNOWN:
            return True
        astray = 0 if floats or seen == UNKNOWN else seen & ~(recorded | (claim.cpus | claim.vhost if claim else 0))
        if not astray:
            return False
        from emupin.node import guestthreads

        return guestthreads.main_thread(self.root, pid) != seen

    def holds_alone(self, uuid: str | None, cpus: Cpus) -> bool:
        """Whether the guest has exactly those, and is there: others may come to what is only promised."""
        claim = self.claims.get(uuid or "")
        return claim is not None and claim.promised_alone == to_mask(cpus) == self.in_place

    def finds_strangers(self, uuid: str | None, cpus: Cpus) -> bool:
        """Whether threads of guests other than `uuid` are on some of `cpus` after all; `others` knows of them then.

        Before a guest gets a CPU alone every other one is asked: who moves threads by hand leaves no trace elsewhere.
        """
        from emupin.node import guestthreads

        mask, where, found = to_mask(cpus), self._emulators(uuid), False
        everywhere = to_mask(self.host.balanced(self.host.online)) if self.host else -1
        for name, (owner, _, pid, vcpus, iothreads, _, seen, floats) in list(self.records.items()):
            if owner == uuid or seen == UNKNOWN or name in self._looked_at:
                continue
            elsewhere = mask & ~(where[owner] | iothreads)
            for allowed in guestthreads.of_process(self.root, pid) - {*vcpus, seen if floats else 0}:
                if allowed & elsewhere and everywhere & ~allowed:
                    self._look_at(name)
                    found = True
                    break
        return found
