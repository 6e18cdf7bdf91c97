"""The threads of a running guest, read from `/proc`, and what each of them is.

A thread is told by its cgroup first, by libvirt's status XML second, by its name last: QEMU names its threads freely,
libvirt's cgroups `emulator`, `vcpuN` and `iothreadN` say whose they are, those of an iothread's block workers too.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError, hint
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.base.system import os
from emupin.guest import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emupin.guest.domain import Domain, Status

EMULATOR, VCPU, IOTHREAD = cgroups.EMULATOR, cgroups.VCPU, cgroups.IOTHREAD
VHOST, HELPER = "vhost", "helper"
UNTOLD = "unknown"
"""An emulator thread or an iothread: neither a cgroup nor a name tells."""
WORKER = "worker"
"""A block worker whose owner no cgroup tells; never the kind of a finished Thread."""

VHOST_DEVICES = ("/dev/vhost-net", "/dev/vhost-vsock", "/dev/vhost-scsi")
"""Devices that give their opener a kernel worker; vhost-user and vDPA have none."""

KERNEL_HELPERS = ("kvm-nx-lpage-re",)
"""Threads that KVM starts inside the QEMU process, in the cgroup of the vCPU that came first (Linux 6.12)."""

PF_KTHREAD, PF_NO_SETAFFINITY = 0x00200000, 0x04000000
"""Of a thread's flags (include/linux/sched.h): one of the kernel's own, and one whose CPUs nobody may set."""
FLAGS = 6
"""Of the fields of `stat` behind the last `)`: the 9th of them all."""


class Thread(Frozen):
    """One thread as it is now."""

    tid: int
    name: str
    kind: str
    """emulator, vcpu, iothread, vhost, helper or unknown."""
    allowed: frozenset[int]
    """The CPUs of `Cpus_allowed_list`."""
    number: int | None = None
    """Of the vCPU or the iothread, where it is known."""
    group: str = ""
    """Its cpuset cgroup, as `/proc` names it."""
    outside: bool = False
    """Somebody has moved it out of the cpuset cgroup that libvirt put it in."""
    fixed: bool = False
    """The kernel lets nobody set its CPUs. Seen where its flags were looked at."""


def read_status_file(root: str, name: str, sections: frozenset[str] = frozenset()) -> Status:
    """libvirt's status XML of the running guest `name`, which has a process. Raises HostError, DomainError."""
    from emupin.guest import statusxml

    path = f"{root}{LIBVIRT_RUN}/{name}.xml"
    try:
        data = read_bytes(path)
    except OSError as error:
        cure = hint(error, "check that the guest is running")
        raise HostError(path, f"cannot be read: {error.strerror}", cure) from None
    status = statusxml.read(data, path, sections)
    if not status.pid:
        raise HostError(path, "names no process", "the guest may still be starting")
    return status


def check_process(root: str, pid: int, uuid: str) -> None:
    """Make sure that process `pid` is the guest `uuid` and not one that got its number. Raises HostError."""
    path = f"{root}/proc/{pid}"
    try:
        command = os.fsdecode(read_bytes(f"{path}/cmdline")).split("\0")
    except (FileNotFoundError, ProcessLookupError):
        raise HostError(
            path, "is no longer there: the guest has ended", "libvirt notices when its daemon runs"
        ) from None
    except OSError as error:
        raise HostError(f"{path}/cmdline", f"cannot be read: {error.strerror}", "run it as root") from None
    if uuid not in command:
        raise HostError(path, f"is not the guest {uuid}", "libvirt's status file is stale")


def read_threads(root: str, pid: int, status: Status, texts: dict[int, tuple[str, str]] | None = None) -> list[Thread]:
    """Every thread of process `pid`, and its vhost workers wherever the kernel has put them.

    Threads that end meanwhile are left out. `texts` takes each one's folder in `/proc` and its `status` file, for who
    wants more of it. Raises HostError where there is no such process.
    """
    try:
        tids = [int(tid) for tid in os.listdir(f"{root}/proc/{pid}/task")]
    except OSError as error:
        raise HostError(f"{root}/proc/{pid}/task", f"cannot be read: {error.strerror}", "is it running?") from None
    vcpus = {tid: vcpu for vcpu, tid in status.vcpu_tids.items()}
    found = [thread for tid in tids if (thread := _read(root, f"/proc/{pid}/task/{tid}", tid, vcpus, texts))]
    if all(thread.kind != VHOST for thread in found) and _has_vhost(root, pid):
        found += _kernel_workers(root, pid, texts)
    if any(thread.kind in (WORKER, UNTOLD) for thread in found):
        found = _tell_apart(found, pid, status.domain)
    return _note_outside(found)


def _read(
    root: str, path: str, tid: int, vcpus: Mapping[int, int], texts: dict[int, tuple[str, str]] | None
) -> Thread | None:
    """The thread at `path`; None where it has ended."""
    try:
        status = os.fsdecode(read_bytes(f"{root}{path}/status"))
        groups = os.fsdecode(read_bytes(f"{root}{path}/cgroup"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if texts is not None:
        texts[tid] = path, status
    name = field(status, "Name:")
    kind, number = _kind(name, groups, vcpus.get(tid))
    allowed = cpuset.parse(field(status, "Cpus_allowed_list:"))
    return Thread(tid, name, kind, allowed, number, cgroups.cpuset_path(groups), False, False)


def field(status: str, key: str) -> str:
    start = status.index(key) + len(key)
    return status[start : status.index("\n", start)].strip("\t ")


def _kind(name: str, groups: str, vcpu: int | None) -> tuple[str, int | None]:
    """What a thread is, and of which vCPU or iothread; `vcpu` is what libvirt's status XML says."""
    kind, number = _kind_by_name(name)
    for line in groups.splitlines():
        place = cgroups.place(line)
        if place is None:
            continue
        if place[0] == EMULATOR:
            return (VHOST if kind == VHOST else EMULATOR), None
        return (HELPER, None) if kind == HELPER and place[0] == VCPU else place
    return (kind, number) if vcpu is None else (VCPU, vcpu)


def _kind_by_name(name: str) -> tuple[str, int | None]:
    if name in KERNEL_HELPERS:
        return HELPER, None
    if name.startswith("vhost-"):
        return VHOST, None
    if name.startswith(("CPU ", "ALL CPUs/")):
        return VCPU, _number(name, "CPU ")
    if name == "worker":
        return WORKER, None
    if name == "IO mon_iothread":
        return EMULATOR, None
    return (IOTHREAD, _number(name, "IO iothread")) if name.startswith("IO ") else (UNTOLD, None)


def _number(name: str, prefix: str) -> int | None:
    digits = name[len(prefix) :].partition("/")[0] if name.startswith(prefix) else ""
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _tell_apart(threads: list[Thread], pid: int, guest: Domain) -> list[Thread]:
    """Without cgroups: whose the block workers are, and what the threads are that have no name of their own.

    QEMU names its threads unless it was told not to (`debug-threads=off`).
    """
    owners, main = _owners(threads, guest), next((thread.name for thread in threads if thread.tid == pid), "")
    named = {thread.number for thread in threads if thread.kind == IOTHREAD}
    nameless = (
        {}
        if len(named) >= len(guest.iothreads)
        else {number: guest.iothreadpins.get(number) for number in guest.iothreads if number not in named}
    )
    untold = [each for each in threads if each.kind == UNTOLD and nameless and each.name == main and each.tid != pid]

    def tell(thread: Thread) -> Thread:
        if thread.kind == WORKER and thread.allowed in owners:
            return thread.replace(kind=IOTHREAD, number=owners[thread.allowed])
        if thread not in untold:
            return thread.replace(kind=EMULATOR)
        pinned_here = [number for number, pin in nameless.items() if pin == thread.allowed]
        if pinned_here and len(pinned_here) == sum(each.allowed == thread.allowed for each in untold):
            return thread.replace(kind=IOTHREAD, number=pinned_here[0] if len(pinned_here) == 1 else None)
        return thread if pinned_here or None in nameless.values() else thread.replace(kind=EMULATOR)

    return [tell(thread) if thread.kind in (WORKER, UNTOLD) else thread for thread in threads]


def _owners(threads: list[Thread], guest: Domain) -> dict[frozenset[int], int | None]:
    """The iothreads by the CPUs on which a block worker is theirs.

    Both QEMU's main loop and an iothread call their workers `worker`. One is an iothread's where it runs on the CPUs of
    that iothread's pin, or on those of the iothread and of no vCPU. Else it goes with the emulator threads: it may
    preempt a vCPU, and breaks no pin of an iothread's.
    """
    vcpus = frozenset().union(*(thread.allowed for thread in threads if thread.kind == VCPU))
    iothreads = [thread for thread in threads if thread.kind == IOTHREAD and not thread.allowed & vcpus]
    apart = {thread.allowed: thread.number for thread in iothreads}
    return {**apart, **{cpus: number for number, cpus in guest.iothreadpins.items()}}


def _note_outside(threads: list[Thread]) -> list[Thread]:
    """A thread is outside where others of its process are in cgroups of libvirt's and it is in none."""
    inside = [cgroups.place(thread.group) is not None for thread in threads]
    if all(inside) or not any(inside):
        return threads
    return [thread if is_in else thread.replace(outside=True) for thread, is_in in zip(threads, inside)]


def _has_vhost(root: str, pid: int) -> bool:
    """Whether process `pid` has one of the devices open that come with a kernel worker."""
    folder = f"{root}/proc/{pid}/fd"
    for descriptor in _listed(folder):
        try:
            if os.readlink(f"{folder}/{descriptor}") in VHOST_DEVICES:
                return True
        except FileNotFoundError:
            continue  # Closed meanwhile.
    return False


def _kernel_workers(root: str, pid: int, texts: dict[int, tuple[str, str]] | None) -> list[Thread]:
    """Kernel threads named `vhost-PID`, as Linux before 6.4 has them, in whatever cgroup.

    Any process may take that name: only the kernel's own threads are workers.
    """
    found = []
    for entry in _listed(f"{root}/proc"):
        if entry.isdigit():
            try:
                name = read_bytes(f"{root}/proc/{entry}/comm")
            except (FileNotFoundError, ProcessLookupError):
                continue  # Ended meanwhile.
            if name == b"vhost-%d\n" % pid and flags(f"{root}/proc/{entry}") & PF_KTHREAD:
                thread = _read(root, f"/proc/{entry}", int(entry), {}, texts)
                found += [thread.replace(kind=VHOST)] if thread else []
    return found


def flags(folder: str) -> int:
    """The kernel's flags of the thread whose folder in `/proc` is given (`PF_*`); 0 where it has ended."""
    try:
        return int(read_bytes(f"{folder}/stat").rpartition(b")")[2].split()[FLAGS])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _listed(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "run it as root") from None
