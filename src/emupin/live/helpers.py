"""A guest's helper processes, which libvirt starts beside QEMU: swtpm, virtiofsd, passt and the like.

libvirt puts them into the cgroup of the emulator threads (qemuSetupCgroupForExtDevices); where it has no cpuset
controller, its pid files tell whose they are. They are shown. No plan is made for them: a cpuset takes them along, and
nobody moves them otherwise.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.guest.threads import HELPER, Thread, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from emupin.guest.domain import Status

    Texts = dict[int, tuple[str, str]]

FOLDERS = ("", "/swtpm", "/passt", "/slirp", "/dbus")
"""Where below LIBVIRT_RUN the pid files are: `ID-NAME-….pid`, virtiofsd's beside the guests' own."""
PROGRAMS = ("swtpm", "virtiofsd", "passt", "slirp-helper", "dbus-daemon")
"""A process with the number of a pid file that was left behind is called otherwise."""
LONGEST = 20
"""Characters of a guest's name in libvirt's file names (VIR_DOMAIN_SHORT_NAME_MAX)."""


def read_helpers(root: str, status: Status, group: str | None, texts: Texts) -> list[Thread]:
    """The threads of all helpers of a guest; those that end meanwhile are left out.

    `group` is the cpuset cgroup of the emulator threads, `texts` as `read_threads` has left it: those threads are none
    of a helper's, and the helpers' are added. Raises HostError.
    """
    pids = _in_cgroup(group) if group else _by_pid_file(root, status)
    return [thread for pid in pids if pid != status.pid and pid not in texts for thread in _threads(root, pid, texts)]


def _in_cgroup(group: str) -> list[int]:
    """Below a threaded cgroup (v2) the one above lists the processes."""
    for folder in (group, os.path.dirname(group)):
        try:
            return [int(pid) for pid in read_bytes(f"{folder}/cgroup.procs").split() if pid != b"0"]
        except FileNotFoundError:
            return []  # The guest has ended.
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                hint = "the cgroup file system must be readable"
                raise HostError(f"{folder}/cgroup.procs", f"cannot be read: {error.strerror}", hint) from None
    return []


def _by_pid_file(root: str, status: Status) -> Iterator[int]:
    """The processes that pid files name, and their children: virtiofsd works in one."""
    guest = status.domain
    prefix = f"{guest.id}-{guest.name[:LONGEST]}-"
    for below in FOLDERS:
        folder = root + LIBVIRT_RUN + below
        for name in sorted(_listed(folder)):
            if name.startswith(prefix) and name.endswith(".pid"):
                pid = _number(f"{folder}/{name}")
                if _name(root, pid).startswith(PROGRAMS):
                    yield pid
                    yield from _children(root, pid)


def _number(path: str) -> int:
    """0 where a pid file says none."""
    try:
        return int(read_bytes(path, 32))
    except (FileNotFoundError, ValueError):
        return 0


def _name(root: str, pid: int) -> str:
    """Empty where there is no such process."""
    try:
        return os.fsdecode(read_bytes(f"{root}/proc/{pid}/comm"))
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(root: str, pid: int) -> list[int]:
    """None where the kernel is built without the list."""
    try:
        return [int(child) for child in read_bytes(f"{root}/proc/{pid}/task/{pid}/children").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _threads(root: str, pid: int, texts: Texts) -> Iterator[Thread]:
    for tid in sorted(int(name) for name in _listed(f"{root}/proc/{pid}/task")):
        path = f"/proc/{pid}/task/{tid}"
        try:
            status = os.fsdecode(read_bytes(f"{root}{path}/status"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended.
        texts[tid] = path, status
        yield Thread(tid, field(status, "Name:"), HELPER, cpuset.parse(field(status, "Cpus_allowed_list:")))


def _listed(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return ()  # The process has ended; or libvirt is too old for this kind of helper.
