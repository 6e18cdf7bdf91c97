"""Whose a thread is that took a vCPU's CPU: this guest's, another guest's, the kernel's, or some process's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base.errors import EmupinError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.guest.threads import field, read_status_file, read_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emupin.guest.domain import Status
    from emupin.guest.threads import Thread

OWN, FOREIGN, KERNEL, PROCESS, GONE = "this guest", "another guest", "kernel", "process", "ended"
PF_KTHREAD = 0x00200000
FLAGS = 6
"""Of the fields of `stat` behind the last `)`: the 9th of them all."""
KWORKER = "kworker/"


@dataclass(frozen=True, order=True)
class Thief:
    """Threads that are counted together."""

    whose: str
    """OWN, FOREIGN, KERNEL, PROCESS, or GONE: it had ended before it could be looked at."""
    kind: str
    """Of a guest's thread: emulator, vcpu, iothread, vhost or helper."""
    name: str
    number: int | None = None
    """Of the vCPU or the iothread."""
    guest: str = ""
    """The other guest."""


class Roster:
    """Knows threads by their ids, and looks at each new one as soon as it is seen: it may not live long."""

    def __init__(self, root: str, name: str, status: Status) -> None:
        self.root, self.guest, self.status = root, name, status
        self.known: dict[int, Thief] = {}
        self.own: set[int] = set()
        """Of the guest's own process: what they are depends on their cgroup, not on a name."""
        self._keep_own()

    def look(self, names: Mapping[int, bytes]) -> None:
        """Find out whose these threads are, by the names that the kernel's events gave them."""
        for tid, name in names.items():
            if tid not in self.own:
                self._find(tid, os.fsdecode(name))

    def _find(self, tid: int, name: str) -> None:
        try:
            text = os.fsdecode(read_bytes(f"{self.root}/proc/{tid}/status"))
            flags = read_bytes(f"{self.root}/proc/{tid}/stat").rpartition(b")")[2].split()[FLAGS]
        except (FileNotFoundError, ProcessLookupError):
            self.known.setdefault(tid, Thief(GONE, "", name or "?"))
            return
        name = name or field(text, "Name:")
        pid = int(field(text, "Tgid:"))
        if int(flags) & PF_KTHREAD:
            self.known[tid] = self._of_kernel(name)
        elif pid == self.status.pid:
            self._keep_own()
        elif (guest := self._guests().get(pid)) is not None:
            self._keep_foreign(pid, guest)
        else:
            self.known[tid] = Thief(PROCESS, "", self._process(pid, name))
        self.known.setdefault(tid, Thief(PROCESS, "", name))  # Its guest ends just now.

    def _of_kernel(self, name: str) -> Thief:
        """Before Linux 6.4 vhost workers are kernel threads, named after their QEMU."""
        pid = name[len("vhost-") :] if name.startswith("vhost-") else ""
        guest = self._guests().get(int(pid)) if pid.isdigit() else None
        if pid == str(self.status.pid):
            return Thief(OWN, "vhost", name)
        if guest:
            return Thief(FOREIGN, "vhost", name, guest=guest)
        return Thief(KERNEL, "", "kworker" if name.startswith(KWORKER) else name)

    def _process(self, pid: int, name: str) -> str:
        """The name of a thread, with that of its process where it is another."""
        try:
            process = os.fsdecode(read_bytes(f"{self.root}/proc/{pid}/comm")).rstrip("\n")
        except (FileNotFoundError, ProcessLookupError):
            return name
        return name if name == process else f"{process}: {name}"

    def _guests(self) -> dict[int, str]:
        """Names of other running guests by the process id that libvirt has noted."""
        folder = self.root + LIBVIRT_RUN
        found = {}
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.endswith(".pid") and os.path.exists(f"{folder}/{name[:-4]}.xml"):
                try:
                    found[int(read_bytes(f"{folder}/{name}", 32))] = name[:-4]
                except (FileNotFoundError, ValueError):
                    continue  # It ends just now.
        found.pop(self.status.pid, None)
        return found

    def _keep_own(self) -> None:
        self._keep(OWN, self.status.pid, self.status, "")
        self.own = {tid for tid, thief in self.known.items() if thief.whose == OWN}

    def _keep_foreign(self, pid: int, guest: str) -> None:
        try:
            self._keep(FOREIGN, pid, read_status_file(self.root, guest), guest)
        except EmupinError:
            return  # It ends just now.

    def _keep(self, whose: str, pid: int, status: Status, guest: str) -> None:
        for thread in _threads(self.root, pid, status):
            self.known[thread.tid] = Thief(whose, thread.kind, thread.name, thread.number, guest)


def _threads(root: str, pid: int, status: Status) -> Iterable[Thread]:
    try:
        return read_threads(root, pid, status)
    except EmupinError:
        return ()  # The guest has ended.
