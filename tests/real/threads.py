"""The threads of a real QEMU, read from the kernel without the code under test."""

from __future__ import annotations

import contextlib
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Status:
    """What libvirt's status file says of a running guest."""

    pid: int
    vcpu_tids: dict[int, int]
    taints: frozenset[str]

    @classmethod
    def from_file(cls, path: Path) -> Status:
        root = ET.parse(path).getroot()
        vcpus = {int(vcpu.attrib["id"]): int(vcpu.attrib["pid"]) for vcpu in root.iterfind("vcpus/vcpu")}
        taints = frozenset(taint.attrib["flag"] for taint in root.iterfind("taint"))
        return cls(int(root.attrib["pid"]), vcpus, taints)


@dataclass(frozen=True)
class Thread:
    tid: int
    name: str
    allowed: frozenset[int]
    cgroup: str
    """The path in the hierarchy of the cpuset controller; empty where the guest has no cgroup of its own."""
    kind: str
    """`emulator`, `vcpuN` or `iothreadN`."""


def threads(proc: Path, status: Status) -> list[Thread]:
    """All threads of the guest, in the order of their ids; one that ends meanwhile is left out."""
    vcpus = {tid: f"vcpu{vcpu}" for vcpu, tid in status.vcpu_tids.items()}
    found = []
    for folder in sorted((proc / str(status.pid) / "task").iterdir(), key=lambda task: int(task.name)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(_thread(folder, vcpus))
    return found


def _thread(folder: Path, vcpus: dict[int, str]) -> Thread:
    tid, name = int(folder.name), (folder / "comm").read_text(errors="replace").rstrip("\n")
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", (folder / "status").read_text(errors="replace"), re.M)
    assert allowed
    cgroup = _cgroup((folder / "cgroup").read_text())
    inside = re.search(r"/(emulator|vcpu\d+|iothread\d+)$", cgroup)
    by_name = re.match(r"IO iothread(\d+)", name)
    kind = inside[1] if inside else vcpus.get(tid) or (f"iothread{by_name[1]}" if by_name else "emulator")
    return Thread(tid, name, cpus(allowed[1]), cgroup if inside else "", kind)


def _cgroup(text: str) -> str:
    """Of the hierarchy with the cpuset controller, else of the unified one."""
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in text.splitlines())}
    of_cpuset = [path for controllers, path in paths.items() if "cpuset" in controllers.split(",")]
    return of_cpuset[0] if of_cpuset else paths.get("", "")


def cpus(text: str) -> frozenset[int]:
    """The kernel's list syntax, read here a second time so that a test does not trust what it tests."""
    runs = (run.split("-") for run in text.split(",") if run)
    return frozenset(cpu for run in runs for cpu in range(int(run[0]), int(run[-1]) + 1))
