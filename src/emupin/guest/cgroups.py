"""The cpuset cgroups that libvirt made for a guest's threads.

Their paths are read, never built: the layout differs between cgroup v1 and v2, with and without systemd, and inside
containers.
"""

from __future__ import annotations

from emupin.base.errors import HostError
from emupin.base.files import read_text
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Place = tuple[str, int | None]

EMULATOR, VCPU, IOTHREAD = "emulator", "vcpu", "iothread"
"""How libvirt's cgroups are called; the latter two with a number behind."""


def place(path: str) -> Place | None:
    """Whose threads libvirt keeps in the cgroup `path`, and the number of that; None where it is none of libvirt's."""
    name = path.rpartition("/")[2]
    if name == EMULATOR:
        return EMULATOR, None
    return next(((kind, int(name[len(kind) :])) for kind in (VCPU, IOTHREAD) if _numbered(name, kind)), None)


def _numbered(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and text[len(prefix) :].isdigit()


def cpuset_path(groups: str) -> str:
    """The cgroup that has the say over CPUs, of those in a thread's `/proc/…/cgroup`; empty where there is none."""
    unified = ""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuset" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


def emulator_group(root: str, pid: int, others: Iterable[int] = ()) -> str | None:
    """The folder of the cpuset cgroup that libvirt made for the emulator threads of process `pid`.

    It is beside those of the `others`, threads of that process, should somebody have moved the main thread elsewhere.
    None where the guest's cgroups come without the cpuset controller. Raises HostError.
    """
    found = _folder(root, read_text(root, f"/proc/{pid}/cgroup"))
    for tid in others:
        if found is None and os.path.exists(f"{root}/proc/{pid}/task/{tid}"):
            found = _folder(root, read_text(root, f"/proc/{pid}/task/{tid}/cgroup"))
    return found


def _folder(root: str, groups: str) -> str | None:
    """The emulator threads' cgroup, beside the one that a thread with these `groups` is in, where that is libvirt's."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if place(path) and (not controllers or "cpuset" in controllers.split(",")):
            mounted = _mounted(root, os.path.dirname(path), unified=not controllers)
            folder = f"{mounted}/{EMULATOR}"
            if mounted and os.path.exists(f"{folder}/cpuset.cpus"):
                return folder
    return None


def iothread_groups(group: str | None) -> list[str]:
    """The folders of the iothreads' cgroups beside the `group` of the emulator threads. Raises HostError."""
    if group is None:
        return []
    machine = os.path.dirname(group)
    try:
        names = sorted(os.listdir(machine))
    except OSError as error:
        raise HostError(machine, f"cannot be listed: {error.strerror}", "the guest may have ended") from None
    return [f"{machine}/{name}" for name in names if _numbered(name, IOTHREAD)]


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
