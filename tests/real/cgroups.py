"""The sub-trees of the machine's cgroup hierarchies that a private host gets as its own."""

from __future__ import annotations

import os
import time
from pathlib import Path


def native_version() -> str:
    """`v1` or `v2`: the version of the hierarchy that has this machine's cpuset controller."""
    return "v1" if any("cpuset" in options for options in _mounts("cgroup").values()) else "v2"


def make(name: str, version: str) -> list[Path]:
    """One group in each hierarchy of the version, none for `none`; what a killed run left behind is removed.

    The names tell runs apart that number their processes alike, each in a pid namespace of its own: nobody but its own
    can say of such a run whether it still goes on.
    """
    ours = f"emupin-{os.stat('/proc/self/ns/pid').st_ino}-"
    groups = []
    for place, _ in _mounts({"v1": "cgroup", "v2": "cgroup2"}.get(version, "")).items():
        for old in Path(place).glob(f"{ours}*"):
            if not Path("/proc", old.name.rpartition("-")[2]).exists():
                remove(old)
        group = Path(place, f"{ours}{name}-{os.getpid()}")
        group.mkdir(exist_ok=True)
        groups.append(group)
        for file in ("cpuset.cpus", "cpuset.mems"):  # of v1: empty in a new group, and then nothing may enter it
            if version == "v1" and (group / file).exists():
                (group / file).write_text(Path(place, file).read_text())
    return groups


def remove(group: Path) -> None:
    """With all below it; its last process may still be on its way out."""
    for folder, *_ in os.walk(group, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                break
            except OSError:  # busy
                time.sleep(0.03)
            else:
                break


def _mounts(kind: str) -> dict[str, list[str]]:
    """Options by mount point. The memory hierarchy is the machine's: it is left out."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    found = {place: options.split(",") for _, place, each, options, *_ in mounts if each == kind}
    return {place: options for place, options in found.items() if "memory" not in options}
