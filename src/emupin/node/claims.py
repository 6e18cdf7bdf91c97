"""Who holds which CPU: a ledger of claims, checked against the running guests whenever it is opened.

The truth is libvirt's status files, one for each running guest, which say where its vCPUs are and where its emulator
threads were recorded. The ledger adds what they cannot say: what was promised to a guest that is still starting, where
its vCPUs will be, and which CPUs are one guest's alone. It also remembers each status file by its stamp, so that of a
thousand running guests only the changed ones are read. One writer at a time; a claim is in the ledger before anybody
acts on it.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from emupin import __version__
from emupin.base import cpuset
from emupin.base.digest import hex_digest
from emupin.base.errors import HostError
from emupin.base.files import LIBVIRT_RUN, RUN, lock, make_private_folder, read_bytes, replace_file
from emupin.base.frozen import Frozen
from emupin.engine.situation import Others, vcpu_cpus
from emupin.policy.match import find_rule
from emupin.policy.values import AUTO, DEDICATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy

    Cpus = frozenset[int]
    Stamp = tuple[int, int, int]
    Record = tuple[str, Stamp, int, int]  # The fields of a Tenant.

FORMAT = (__version__, sys.hexversion)
"""What a ledger must have been written by; any other is made anew from the running guests."""

PENDING_SECONDS = 900.0
"""How long a guest counts that does not run yet: a start that never came, a migration that was cancelled."""

LONG_AGO = float("-inf")
"""When a claim was made that ends as soon as its guest does not run."""

REMEMBERED = 4096
"""Of how many stopped guests to remember what they held."""


class Tenant(Frozen):
    """What one running guest's status file says. CPU sets are bit masks: a thousand guests are looked through."""

    uuid: str
    stamp: Stamp
    """Of the file: modification time in nanoseconds, inode, size in bytes."""
    vcpus: int
    emulator: int
    """The recorded pin; 0 where there is none."""


class Claim(Frozen):
    """The CPUs of one guest's emulator threads."""

    cpus: int
    """0 for a guest whose emulator threads are left where they are."""
    dedicated: bool
    since: float
    """Seconds on the boot clock."""
    former: int = 0
    """What a running guest had before: its threads are there until libvirt has recorded that they are at `cpus`."""


class Ledger:
    """The claims below a root folder, open for one process while it is in the `with` statement.

    Raises HostError where it cannot be locked, or does not know whose CPUs are taken.
    """

    def __init__(self, root: str, policy: Policy | None) -> None:
        self.root, self.policy = root, policy
        self.records: dict[str, Record] = {}
        """The running guests by status file name; plain, as the file has them, for there may be a thousand."""
        self.claims: dict[str, Claim] = {}
        """By UUID."""
        self.starting: dict[str, tuple[int, float]] = {}
        """Guests that do not run yet, by UUID: their vCPUs' CPUs, and since when, in seconds on the boot clock."""
        self.history: dict[str, int] = {}
        """What guests that are gone held, by UUID, the latest last."""
        self._written: bytes | None = None
        self._lock = -1

    @classmethod
    def look(cls, root: str, policy: Policy | None) -> Ledger:
        """The claims as they stand, to be shown: nothing is locked, and nothing may be saved. Raises HostError."""
        ledger = cls(root, policy)
        ledger._load()
        ledger._refresh()
        return ledger

    def __enter__(self) -> Ledger:
        try:
            make_private_folder(self.root + RUN)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(f"{self.root}{RUN}/lock", flags, 0o600)
            lock(self._lock)
        except OSError as error:
            hint = "is another hook stuck, or the file system full?"
            raise HostError(f"{self.root}{RUN}/lock", f"cannot be locked: {error.strerror}", hint) from None
        try:
            self._load()
            self._refresh()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @property
    def tenants(self) -> dict[str, Tenant]:
        """The running guests by status file name."""
        return {name: Tenant(*record) for name, record in self.records.items()}

    @property
    def known(self) -> frozenset[str]:
        """The UUIDs of guests that have something, will have, or had: for all others what guests have is the same."""
        running = frozenset(record[0] for record in self.records.values())
        return running.union(self.claims, self.starting, self.history)

    # -- what a decision needs, and what comes of it -------------------------------------------------------------------

    def others(self, uuid: str | None, cpus: Cpus) -> Others:
        """What the other guests have of `cpus`."""
        mask = to_mask(cpus)
        vcpus: dict[int, str] = {}
        emulators: dict[int, str] = {}
        for owner, _, runs, recorded in self.records.values():
            if owner != uuid:
                if runs & mask:
                    _add(vcpus, runs & mask, owner)
                if recorded & mask and (owner not in self.claims or not self.claims[owner].cpus):
                    _add(emulators, recorded & mask, owner)
        for owner, (will_run, _) in self.starting.items():
            if owner != uuid:
                _add(vcpus, will_run & mask, owner)
        dedicated: dict[int, str] = {}
        for owner, claim in self.claims.items():
            if owner != uuid:
                _add(dedicated if claim.dedicated else emulators, claim.cpus & mask, owner)
                _add(emulators, claim.former & mask, owner)
        mine = self.claims.get(uuid or "")
        previous = mine.cpus if mine and mine.cpus else self.history.get(uuid or "", 0)
        return Others(vcpus, dedicated, emulators, from_mask(previous) or None)

    def claim(self, uuid: str, cpus: Cpus, dedicated: bool) -> None:
        """Give `cpus` to the guest `uuid`, instead of what it had."""
        claimed, before, former = to_mask(cpus), self.claims.get(uuid), 0
        if before and self._runs(uuid):
            former = (before.cpus | before.former) & ~claimed
        self.claims[uuid] = Claim(claimed, dedicated, _boot_seconds(), former)

    def expect(self, uuid: str, vcpus: Cpus) -> None:
        """Note where the vCPUs of the guest `uuid` will be, until it runs and its status file says so."""
        if not self._runs(uuid):
            self.starting[uuid] = to_mask(vcpus), _boot_seconds()

    def has(self, uuid: str) -> bool:
        """Whether the guest `uuid` has a claim, or starts."""
        return uuid in self.claims or uuid in self.starting

    def release(self, uuid: str) -> None:
        """Take back what the guest `uuid` has, and remember it.

        As long as it runs all the same, its threads may still be there: nobody gets those CPUs alone until it ends.
        """
        self.starting.pop(uuid, None)
        claim = self.claims.pop(uuid, None)
        if claim and self._runs(uuid):
            self.claims[uuid] = Claim(0, False, LONG_AGO, claim.cpus | claim.former)
        if claim and claim.cpus:
            self.history.pop(uuid, None)
            self.history[uuid] = claim.cpus
            for oldest in list(self.history)[:-REMEMBERED]:
                del self.history[oldest]

    def _runs(self, uuid: str) -> bool:
        return any(record[0] == uuid for record in self.records.values())

    # -- the file ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Take over the ledger's file. One that is missing, torn, or another version's is worth nothing."""
        try:
            data = read_bytes(f"{self.root}{RUN}/claims")
        except OSError:
            return
        digest, _, payload = data.partition(b"\n")
        if digest != hex_digest(payload).encode():
            return
        try:
            written_by, boot, records, claims, starting, history = marshal.loads(payload)
        except (EOFError, ValueError, TypeError):  # Written whole, by an interpreter with another format.
            return
        if (written_by, boot) == (FORMAT, _boot(self.root)):
            self.records = records
            self.claims = {uuid: Claim(*values) for uuid, values in claims.items()}
            self.starting, self.history = starting, history
            self._written = payload

    def save(self) -> None:
        """Write what has changed. Raises HostError."""
        payload = marshal.dumps(
            (
                FORMAT,
                _boot(self.root),
                self.records,
                {uuid: tuple(claim.__dict__.values()) for uuid, claim in self.claims.items()},
                self.starting,
                self.history,
            )
        )
        if payload == self._written:
            return
        path = f"{self.root}{RUN}/claims"
        try:
            replace_file(path, hex_digest(payload).encode() + b"\n" + payload, durable=False)
        except OSError as error:
            raise HostError(path, f"cannot be written: {error.strerror}", "make room in /run") from None

    # -- the running guests --------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read status files that are new or changed, forget those that are gone, drop old claims without a guest."""
        found: dict[str, Record] = {}
        for name, stamp in _status_files(self.root):
            known = self.records.get(name)
            record = known if known and known[1] == stamp else self._read(name, stamp)
            if record:
                found[name] = record
        self.records = found
        running = {record[0] for record in found.values()}
        oldest = _boot_seconds() - PENDING_SECONDS
        self.starting = {
            uuid: each for uuid, each in self.starting.items() if uuid not in running and each[1] >= oldest
        }
        for uuid, claim in list(self.claims.items()):
            if uuid not in running and claim.since < oldest:
                self.release(uuid)

    def _read(self, name: str, stamp: Stamp) -> Record | None:
        """The guest of one status file; None where it has ended meanwhile. Raises HostError, DomainError."""
        path = f"{self.root}{LIBVIRT_RUN}/{name}"
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(path, f"cannot be read: {error.strerror}", "whose CPUs are taken is not known") from None
        from emupin.guest import statusxml  # Mostly no file has changed, and this is not needed.

        status = statusxml.read(data, path, self.policy.sections() if self.policy else frozenset())
        guest = status.domain
        uuid = guest.uuid or name
        recorded = to_mask(guest.emulatorpin or ())
        claim = self.claims.get(uuid)
        if claim is None:
            self._adopt(guest, uuid, status.pid)
        elif claim.former and claim.cpus == recorded:
            self.claims[uuid] = claim.replace(former=0)
        return uuid, stamp, to_mask(vcpu_cpus(guest)), recorded

    def _adopt(self, guest: Domain, uuid: str, pid: int) -> None:
        """A running guest without a claim, whose ledger was lost or that started before us, keeps what it has.

        Its threads were put there before libvirt's record of it was. It holds the CPUs alone if the policy would have
        dedicated so many to it, none of its own vCPUs runs there, and nobody else uses them.
        """
        pool = self.policy.pool if self.policy else None
        rule = find_rule(guest, self.policy) if self.policy else None
        if not rule or not pool:
            return
        sizes = {placement.number for placement in rule.placement if placement.word == DEDICATED}
        if any(placement.word == AUTO for placement in rule.placement):
            sizes.add(1)
        if not sizes:
            return
        free = pool - vcpu_cpus(guest)
        for cpus in (_main_thread_cpus(self.root, pid), guest.emulatorpin):
            mask = to_mask(cpus or ())
            if (
                cpus
                and cpus <= free
                and len(cpus) in sizes
                and not any(held.cpus & mask for held in self.claims.values())
            ):
                self.claims[uuid] = Claim(mask, True, _boot_seconds())
                return


def _main_thread_cpus(root: str, pid: int) -> Cpus | None:
    """Where QEMU's main thread, one of the emulator's, may run; None where there is no such process, or no telling."""
    try:
        status = os.fsdecode(read_bytes(f"{root}/proc/{pid}/status"))
        return cpuset.parse_kernel(status.partition("Cpus_allowed_list:")[2].partition("\n")[0].strip())
    except (OSError, cpuset.CpuListError):
        return None


def _status_files(root: str) -> Iterable[tuple[str, Stamp]]:
    """Every status file's name and stamp. Raises HostError."""
    folder = root + LIBVIRT_RUN
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".xml")]
    except FileNotFoundError:
        return  # libvirt has not run yet: nobody holds anything.
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "whose CPUs are taken is not known") from None
    for name in sorted(names):
        try:
            status = os.stat(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # Ended meanwhile.
        yield name, (status.st_mtime_ns, status.st_ino, status.st_size)


def _add(by_cpu: dict[int, str], mask: int, uuid: str) -> None:
    """Note `uuid` for each CPU of `mask` that nobody is noted for."""
    while mask:
        lowest = mask & -mask
        by_cpu.setdefault(lowest.bit_length() - 1, uuid)
        mask ^= lowest


def to_mask(cpus: Iterable[int]) -> int:
    """A set of CPUs as the bits of a number."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def from_mask(mask: int) -> Cpus:
    """The inverse of `to_mask`."""
    cpus = []
    while mask:
        lowest = mask & -mask
        cpus.append(lowest.bit_length() - 1)
        mask ^= lowest
    return frozenset(cpus)


def _boot_seconds() -> float:
    """Seconds since the host started, those asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot(root: str) -> str:
    """Which boot of the host this is; empty where the kernel does not say."""
    try:
        return os.fsdecode(read_bytes(f"{root}/proc/sys/kernel/random/boot_id")).strip()
    except FileNotFoundError:
        return ""
