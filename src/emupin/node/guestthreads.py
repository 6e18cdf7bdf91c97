"""Where the threads of a running guest really may run, whatever libvirt's files say."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.base.mask import to_mask
from emupin.base.system import os
from emupin.guest.cgroups import emulator_group
from emupin.guest.domain import Status
from emupin.guest.domainxml import read as read_domain
from emupin.guest.threads import EMULATOR, VCPU, VHOST, read_threads
from emupin.node.book import NEVER, UNKNOWN, RunningGuest

TYPE_CHECKING = False
if TYPE_CHECKING:
    Cpus = frozenset[int]

CPU_FILES = "/sys/devices/system/cpu"


class Threads(Frozen):
    """Where the threads of one process may run, as masks."""

    emulator: int
    """Its emulator threads together, vhost workers included; of some that somebody has confined, those alone."""
    vcpus: tuple[int, ...]
    """The different ones of its vCPUs; those that nobody has confined are 0, any CPU."""
    floats: bool
    """Nobody has confined any of the emulator threads."""


def read(root: str, uuid: str, status: Status) -> Threads | None:
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


def vhost_workers(root: str, pid: int) -> int:
    """Where the vhost workers of a process may run, all together; 0 where it has none, or there is no such process."""
    try:
        found = read_threads(root, pid, nobody(pid))
    except HostError:
        return 0
    return to_mask(frozenset().union(*(thread.allowed for thread in found if thread.kind == VHOST)))


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


# -- a guest without a status file -------------------------------------------------------------------------------------


def nobody(pid: int) -> Status:
    """What is known of process `pid` without a status file."""
    return Status(pid, "", {}, read_domain(b"<domain><name>nobody</name></domain>", "nothing"))


def by_threads(root: str, name: str) -> RunningGuest:
    """A guest of which there is only a file that cannot be read: its UUID and process where they can be made out."""
    try:
        data = read_bytes(f"{root}{LIBVIRT_RUN}/{name}")
    except OSError:
        data = b""
    uuid = _between(data, b"<uuid>", b"</uuid>") or name
    pid = _number(_between(data.partition(b"<domain ")[0], b" pid='", b"'")) or _number(_pid_file(root, name))
    found = read(root, uuid, nobody(pid))
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
