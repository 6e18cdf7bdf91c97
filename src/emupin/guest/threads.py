"""The threads of a running guest, read from `/proc`, and what each of them is.

A thread is told by its cgroup first, by libvirt's status XML second, by its name last: QEMU names its threads freely,
libvirt's cgroups `emulator`, `vcpuN` and `iothreadN` say whose they are, those of an iothread's block workers too.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes, read_text
from emupin.base.frozen import Frozen
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emupin.guest.domain import Status

EMULATOR, VCPU, IOTHREAD, VHOST, HELPER = "emulator", "vcpu", "iothread", "vhost", "helper"
WORKER = "worker"
"""A block worker whose owner no cgroup tells; never the kind of a finished Thread."""

VHOST_DEVICES = ("/dev/vhost-net", "/dev/vhost-vsock", "/dev/vhost-scsi")
"""Devices that give their opener a kernel worker; vhost-user and vDPA have none."""

KERNEL_HELPERS = ("kvm-nx-lpage-re",)
"""Threads that KVM starts inside the QEMU process, in the cgroup of the vCPU that came first (Linux 6.12)."""


class Thread(Frozen):
    """One thread as it is now."""

    tid: int
    name: str
    kind: str
    """emulator, vcpu, iothread, vhost or helper."""
    allowed: frozenset[int]
    """The CPUs of `Cpus_allowed_list`."""
    number: int | None = None
    """Of the vCPU or the iothread, where it is known."""


def read_status_file(root: str, name: str, sections: frozenset[str] = frozenset()) -> Status:
    """libvirt's status XML of the running guest `name`, which has a process. Raises HostError, DomainError."""
    from emupin.guest import statusxml

    path = f"{root}{LIBVIRT_RUN}/{name}.xml"
    try:
        data = read_bytes(path)
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "is the guest running?") from None
    status = statusxml.read(data, path, sections)
    if not status.pid:
        raise HostError(path, "names no process", "is the guest still starting?")
    return status


def check_process(root: str, pid: int, uuid: str) -> None:
    """Make sure that process `pid` is the guest `uuid` and not one that got its number. Raises HostError."""
    command = read_text(root, f"/proc/{pid}/cmdline").split("\0")
    if uuid not in command:
        raise HostError(f"{root}/proc/{pid}", f"is not the guest {uuid}", "libvirt's status file is stale")


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
    return _tell_workers_apart(found)


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
    return Thread(tid, name, kind, cpuset.parse(field(status, "Cpus_allowed_list:")), number)


def field(status: str, key: str) -> str:
    start = status.index(key) + len(key)
    return status[start : status.index("\n", start)].strip("\t ")


def _kind(name: str, groups: str, vcpu: int | None) -> tuple[str, int | None]:
    """What a thread is, and of which vCPU or iothread; `vcpu` is what libvirt's status XML says."""
    kind, number = _kind_by_name(name)
    for line in groups.splitlines():
        last = line.rpartition("/")[2]
        if last == "emulator":
            return (VHOST if kind == VHOST else EMULATOR), None
        if _numbered(last, "vcpu"):
            return (HELPER, None) if kind == HELPER else (VCPU, int(last[4:]))
        if _numbered(last, "iothread"):
            return IOTHREAD, int(last[8:])
    return (kind, number) if vcpu is None else (VCPU, vcpu)


def _numbered(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and text[len(prefix) :].isdigit()


def _kind_by_name(name: str) -> tuple[str, int | None]:
    if name in KERNEL_HELPERS:
        return HELPER, None
    if name.startswith("vhost-"):
        return VHOST, None
    if name.startswith(("CPU ", "ALL CPUs/")):
        return VCPU, _number(name, "CPU ")
    if name == "worker":
        return WORKER, None
    if name.startswith("IO ") and name != "IO mon_iothread":
        return IOTHREAD, _number(name, "IO iothread")
    return EMULATOR, None


def _number(name: str, prefix: str) -> int | None:
    digits = name[len(prefix) :].partition("/")[0] if name.startswith(prefix) else ""
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _tell_workers_apart(threads: list[Thread]) -> list[Thread]:
    """Without cgroups, give a block worker to the iothread whose CPUs it inherited.

    Both QEMU's main loop and an iothread call theirs `worker`. One that may be either's is left to the iothread: idle
    workers end after ten seconds, and a new one of the main loop inherits the right CPUs.
    """
    owners = {thread.allowed: thread.number for thread in threads if thread.kind == IOTHREAD}
    return [
        thread.replace(kind=IOTHREAD if thread.allowed in owners else EMULATOR, number=owners.get(thread.allowed))
        if thread.kind == WORKER
        else thread
        for thread in threads
    ]


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
    """Kernel threads named `vhost-PID`, as Linux before 6.4 has them, in whatever cgroup."""
    found = []
    for entry in _listed(f"{root}/proc"):
        if entry.isdigit():
            try:
                name = read_bytes(f"{root}/proc/{entry}/comm")
            except (FileNotFoundError, ProcessLookupError):
                continue  # Ended meanwhile.
            if name == b"vhost-%d\n" % pid:
                thread = _read(root, f"/proc/{entry}", int(entry), {}, texts)
                found += [thread.replace(kind=VHOST)] if thread else []
    return found


def _listed(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "the hook must run as root") from None


def emulator_group(root: str, pid: int) -> str | None:
    """The folder of the cpuset cgroup that libvirt made for the emulator threads of process `pid`.

    None where the guest's cgroups come without the cpuset controller. Its path is read, never built: the layout
    differs between cgroup v1 and v2, with and without systemd, and inside containers. Raises HostError.
    """
    groups = read_text(root, f"/proc/{pid}/cgroup")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if path.rpartition("/")[2] != "emulator":
            continue
        if controllers and "cpuset" not in controllers.split(","):
            continue
        folder = _mounted(root, path, unified=not controllers)
        if folder and os.path.exists(f"{folder}/cpuset.cpus"):
            return folder
    return None


def iothread_groups(group: str | None) -> list[str]:
    """The folders of the iothreads' cgroups beside the `group` of the emulator threads."""
    if group is None:
        return []
    machine = os.path.dirname(group)
    return [f"{machine}/{name}" for name in sorted(_listed(machine)) if _numbered(name, "iothread")]


def _mounted(root: str, path: str, unified: bool) -> str | None:
    """Where the cgroup `path` of the cpuset hierarchy is mounted (proc(5), mountinfo)."""
    for line in read_text(root, "/proc/self/mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        filesystem, _, options = kind.split(" ", 2)
        if filesystem != ("cgroup2" if unified else "cgroup"):
            continue
        if not unified and "cpuset" not in options.split(","):
            continue
        top, point = fields.split(" ")[3:5]
        top = top.rstrip("/")
        if path.startswith(top + "/"):
            return root + point + path[len(top) :]
    return None
