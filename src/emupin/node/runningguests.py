"""The running guests: what libvirt's status file says of each, and where its threads really may run.

A guest's own faults stay its own: of one whose status file cannot be read, its threads alone are known.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import DomainError, HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.base.mask import to_mask
from emupin.base.system import os
from emupin.node.book import UNKNOWN, RunningGuest, pinned, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.domain import Domain, Status
    from emupin.node.book import Stamp

    Cpus = frozenset[int]

CPU_FILES = "/sys/devices/system/cpu"

NEVER = (0, 0, 0)
"""The stamp of a file that is to be read again."""


class Reading(Frozen):
    """What one status file gave."""

    running: RunningGuest
    guest: Domain | None
    """None where the file cannot be read."""
    fault: str = ""
    """Why not."""


def status_files(root: str) -> Iterator[tuple[str, Stamp]]:
    """Every status file's name and stamp. Raises HostError."""
    folder = root + LIBVIRT_RUN
    try:
        descriptor = os.open(
            folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )  # To ask there for a name is quickest.
    except FileNotFoundError:
        return  # libvirt has not run yet: nobody holds anything.
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "so the CPUs in use are not known") from None
    try:
        for name in sorted([name for name in os.listdir(descriptor) if name.endswith(".xml")]):
            try:
                status = os.stat(name, dir_fd=descriptor)
            except FileNotFoundError:
                continue  # Ended meanwhile.
            yield name, (status.st_mtime_ns, status.st_ino, status.st_size)
    finally:
        os.close(descriptor)


def read(root: str, name: str, stamp: Stamp, sections: frozenset[str]) -> Reading | None:
    """The guest of the status file `name`; None where it has ended meanwhile. Raises HostError for who is not root."""
    try:
        status = _status(root, name, sections)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        path = f"{root}{LIBVIRT_RUN}/{name}"
        raise HostError(path, f"cannot be read: {error.strerror}", "so the CPUs in use are not known") from None
    except (OSError, DomainError) as error:
        return Reading(_by_threads(root, name), None, f"guest {name[:-4]} is judged by its threads alone: {error}")
    guest = status.domain
    return Reading(RunningGuest(guest.uuid or name, stamp, status.pid, *pinned(guest), recorded(guest)), guest)


def look_at(root: str, name: str, running: RunningGuest) -> RunningGuest:
    """The guest `running` with where its emulator threads are allowed now."""
    try:
        status = _status(root, name, frozenset())
    except (OSError, DomainError):
        status = _nobody(running.pid)
    found = threads(root, running.uuid, status)
    return running.replace(seen=found.emulator, floats=found.floats) if found else running.replace(seen=UNKNOWN)


def _status(root: str, name: str, sections: frozenset[str]) -> Status:
    """Raises OSError, DomainError."""
    from emupin.guest import statusxml  # Mostly no file has changed, and this is not needed.

    path = f"{root}{LIBVIRT_RUN}/{name}"
    return statusxml.read(read_bytes(path), path, sections)


def _nobody(pid: int) -> Status:
    """What is known of process `pid` without a status file."""
    from emupin.guest.domain import Status
    from emupin.guest.domainxml import read as read_domain

    return Status(pid, "", {}, read_domain(b"<domain><name>nobody</name></domain>", "nothing"))


def _by_threads(root: str, name: str) -> RunningGuest:
    """A guest of which there is only a file that cannot be read: its UUID and process where they can be made out."""
    try:
        data = read_bytes(f"{root}{LIBVIRT_RUN}/{name}")
    except OSError:
        data = b""
    uuid = _between(data, b"<uuid>", b"</uuid>") or name
    pid = _number(_between(data.partition(b"<domain ")[0], b" pid='", b"'")) or _number(_pid_file(root, name))
    found = threads(root, uuid, _nobody(pid))
    if found is None:
        return RunningGuest(uuid, NEVER, pid, (), 0, 0, UNKNOWN)
    return RunningGuest(uuid, NEVER, pid, found.vcpus, 0, 0, found.emulator, found.floats)


def _between(data: bytes, before: bytes, after: bytes) -> str:
    return os.fsdecode(data.partition(before)[2].partition(after)[0])


def _pid_file(root: str, name: str) -> str:
    try:
        return os.fsdecode(read_bytes(f"{root}{LIBVIRT_RUN}/{name[:-4]}.pid")).strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


# -- threads ----------------------------------------------------------------------------------------------------------


class Threads(Frozen):
    """Where the threads of one process may run, as masks."""

    emulator: int
    """Its emulator threads together, vhost workers included; of some that somebody has confined, those alone."""
    vcpus: tuple[int, ...]
    """The different ones of its vCPUs; those that nobody has confined are 0, any CPU."""
    floats: bool
    """Nobody has confined any of the emulator threads."""


def threads(root: str, uuid: str, status: Status) -> Threads | None:
    """Where the threads of the guest `uuid` may run; None where it has no process, or there is no telling."""
    if not status.pid or not _is_the_guest(root, status.pid, uuid):
        return None
    emulators, vcpus = _allowed(root, status)
    if not emulators:
        return None
    anywhere = to_mask(_unconfined(root, status.pid))
    confined = {mask for mask in emulators if not anywhere or anywhere & ~mask}
    together = 0
    for mask in confined or emulators:
        together |= mask
    pinned = {mask if not anywhere or anywhere & ~mask else 0 for mask in vcpus}
    return Threads(together, tuple(sorted(pinned)), not confined)


def _is_the_guest(root: str, pid: int, uuid: str) -> bool:
    """Not another process that got the number. One that does not show its command line may be it."""
    try:
        command = os.fsdecode(read_bytes(f"{root}/proc/{pid}/cmdline")).split("\0")
    except OSError:
        return True
    return uuid in command or uuid.endswith(".xml")


def _allowed(root: str, status: Status) -> tuple[set[int], set[int]]:
    """The different masks of the emulator threads, and those of the vCPUs."""
    from emupin.guest.threads import EMULATOR, VCPU, VHOST, read_threads

    try:
        found = read_threads(root, status.pid, status)
    except HostError:
        main = main_thread(root, status.pid)
        return {main} - {UNKNOWN}, set()
    emulators = {to_mask(thread.allowed) for thread in found if thread.kind in (EMULATOR, VHOST)}
    return emulators, {to_mask(thread.allowed) for thread in found if thread.kind == VCPU}


def main_thread(root: str, pid: int) -> int:
    """Where QEMU's main thread may run; UNKNOWN where there is no such process, or no telling."""
    return _thread(root, f"/proc/{pid}", pid)


def of_process(root: str, pid: int) -> set[int]:
    """The different masks of all threads of a process, whatever they are; none where there is no such process."""
    try:
        tids = os.listdir(f"{root}/proc/{pid}/task")
    except OSError:
        return set()
    return {_thread(root, f"/proc/{pid}/task/{tid}", int(tid)) for tid in tids} - {UNKNOWN}


def _thread(root: str, path: str, tid: int) -> int:
    try:
        if not root:
            return to_mask(os.sched_getaffinity(tid))  # Those of a thousand guests may be asked for.
        status = os.fsdecode(read_bytes(f"{root}{path}/status"))
        return to_mask(cpuset.parse_kernel(status.partition("Cpus_allowed_list:")[2].partition("\n")[0].strip()))
    except (OSError, cpuset.CpuListError):
        return UNKNOWN


def _unconfined(root: str, pid: int) -> Cpus:
    """Where a thread of the guest may run that nobody has confined: on the CPUs of the guest's cgroup.

    Less the isolated ones: newer libvirts keep such threads off them.
    """
    from emupin.guest.cgroups import emulator_group

    try:
        group = emulator_group(root, pid)
    except HostError:
        group = None
    above = group and (
        _list(f"{os.path.dirname(group)}/cpuset.cpus.effective") or _list(f"{os.path.dirname(group)}/cpuset.cpus")
    )
    cpus = above or _list(f"{root}{CPU_FILES}/online")
    return cpus - _list(f"{root}{CPU_FILES}/isolated") or cpus


def _list(path: str) -> Cpus:
    """The CPUs of a kernel's list file; none where there is no such file."""
    try:
        return cpuset.parse_kernel(os.fsdecode(read_bytes(path)))
    except (OSError, cpuset.CpuListError):
        return frozenset()
