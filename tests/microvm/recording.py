"""Recorded files of running guests: written by a micro VM, unpacked for the fast tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "guest"
NAME = "nfv-1"

Recording = dict[str, Any]


def path_of(kernel: str) -> Path:
    return FIXTURES / f"cgroup-v2-linux-{kernel}.json"


def read(path: Path) -> Recording:
    recording: Recording = json.loads(path.read_text())
    return recording


def write(path: Path, kernel: str, recording: Recording) -> None:
    source = (
        f"Linux {kernel} (Debian 12), libvirt 9.0, QEMU 7.2 without KVM; written by tests/microvm with --regenerate"
    )
    text = json.dumps({"source": source, **recording}, indent=1, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def pid(recording: Recording) -> int:
    found = re.search(r"<domstatus [^>]*\bpid='(\d+)'", recording["files"][f"/run/libvirt/qemu/{NAME}.xml"])
    assert found
    return int(found[1])


def unpack(recording: Recording, root: Path) -> Path:
    """The recorded files and links below `root`."""
    for name, text in recording["files"].items():
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (root / f"proc/{pid(recording)}/fd").mkdir(exist_ok=True)
    for name, to in recording["links"].items():
        (root / name.lstrip("/")).symlink_to(to)
    return root


def shape(recording: Recording) -> set[str]:
    """What stays from one run to the next: paths with thread names for numbers, and the texts that say where."""
    files = recording["files"]
    names = {
        path.split("/")[-2]: re.sub(r"\d{2,}", "PID", text.strip())
        for path, text in files.items()
        if path.endswith("/comm")
    }
    names[str(pid(recording))] = "QEMU"

    def plain(path: str) -> str:
        return "/".join(names.get(part, part) for part in path.split("/"))

    telling = ("/cgroup", "/cgroup.type", "/cpuset.cpus", "/cpuset.cpus.effective")
    return {f"{plain(path)}: {text.strip() if path.endswith(telling) else ''}" for path, text in files.items()} | {
        f"{to}: open" for to in recording["links"].values()
    }
