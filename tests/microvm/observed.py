"""What the kernel and libvirt show of a running guest, read inside the micro VM without the code under test."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from real.threads import Status, threads

from microvm.guests import Guest

CGROUP = Path("/sys/fs/cgroup")
RUN = Path("/run/libvirt/qemu")
STORED = Path("/etc/libvirt/qemu")
AUDIT = Path("/var/log/emupin/audit.jsonl")
FILES = ("cgroup", "comm", "status", "stat", "schedstat")
"""Of a thread, below `/proc`."""


def observe(guest: Guest) -> dict[str, Any]:
    machine = machine_of(guest)
    return {
        "pid": pid_of(guest),
        "state": ET.parse(RUN / f"{guest.name}.xml").getroot().attrib["state"],
        "threads": threads_of(guest),
        "groups": {path.parent.name: group(path.parent) for path in sorted(machine.glob("*/cpuset.cpus"))},
        "live": pin(RUN, guest),
        "stored": pin(STORED, guest),
        "audit": [entry for entry in audit() if entry.get("name") == guest.name],
    }


def pid_of(guest: Guest) -> int:
    return Status.from_file(RUN / f"{guest.name}.xml").pid


def threads_of(guest: Guest) -> list[dict[str, Any]]:
    status = Status.from_file(RUN / f"{guest.name}.xml")
    found = [asdict(thread) for thread in threads(Path("/proc"), status)]
    return found + workers_outside(status.pid, {thread["tid"] for thread in found})


def pin(folder: Path, guest: Guest) -> str | None:
    """What libvirt's status file, or its stored definition, has as the emulator's CPUs."""
    found = ET.parse(folder / f"{guest.name}.xml").getroot().find(".//cputune/emulatorpin")
    return None if found is None else found.attrib["cpuset"]


def vhost_workers(pid: int) -> Iterator[Path]:
    """The folders of the kernel threads `vhost-PID`, below `/proc`; a process that ends meanwhile is none of them."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if (folder / "comm").read_text() == f"vhost-{pid}\n":
                yield folder


def workers_outside(pid: int, known: Iterable[int]) -> list[dict[str, Any]]:
    """The vhost workers that are no threads of the process."""
    return [
        {
            "tid": int(folder.name),
            "name": f"vhost-{pid}",
            "allowed": os.sched_getaffinity(int(folder.name)),
            "cgroup": (folder / "cgroup").read_text().strip().rpartition(":")[2],
            "kind": "outside",
        }
        for folder in vhost_workers(pid)
        if int(folder.name) not in known
    ]


def machine_of(guest: Guest) -> Path:
    """The folder that holds the guest's `emulator`, `vcpuN` and `iothreadN`."""
    path = Path(f"/proc/{pid_of(guest)}/cgroup").read_text().strip().rpartition(":")[2]
    return (CGROUP / path.lstrip("/")).parent


def group(folder: Path) -> dict[str, str]:
    names = ("cpuset.cpus", "cpuset.cpus.effective", "cgroup.type")
    return {name: (folder / name).read_text().strip() for name in names}


def audit() -> list[dict[str, Any]]:
    keys = ("op", "outcome", "name", "rule", "placement", "after", "reason", "warnings")
    lines = AUDIT.read_text().splitlines() if AUDIT.exists() else []
    return [{key: entry.get(key) for key in keys} for entry in map(json.loads, lines)]


def recording(guest: Guest) -> dict[str, dict[str, str]]:
    """The files that emupin reads of a running guest, as they are."""
    pid = pid_of(guest)
    machine, process = machine_of(guest), Path(f"/proc/{pid}")
    paths = [RUN / f"{guest.name}.xml", Path("/proc/self/mountinfo"), process / "cgroup", process / "cmdline"]
    paths += [task / name for task in sorted(process.glob("task/*")) for name in FILES]
    for folder in (machine, *sorted(path.parent for path in machine.glob("*/cgroup.type"))):
        paths += [folder / name for name in ("cgroup.type", "cpuset.cpus", "cpuset.cpus.effective", "cgroup.threads")]
    paths += [folder / name for folder in vhost_workers(pid) for name in FILES]
    return {
        "files": dict(_each(paths, lambda path: path.read_text(errors="replace"))),
        "links": {
            path: to for path, to in _each(sorted(process.glob("fd/*")), os.readlink) if to.startswith("/dev/vhost")
        },
    }


def _each(paths: Iterable[Path], look: Callable[[Path], str]) -> Iterator[tuple[str, str]]:
    """What `look` finds at each path, by its name; one that is not there, or no longer, is left out."""
    for path in paths:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield str(path), look(path)
