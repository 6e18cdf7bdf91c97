"""Host file trees for tests: made from a topology, or unpacked from a manifest of the files of a real one."""

from __future__ import annotations

from pathlib import Path

from emupin.base import cpuset
from emupin.engine.host import Host

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "host"

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


def write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def unpack(manifest: Path, root: Path) -> Path:
    """The files of a manifest below `root`: a line `PATH: TEXT` each, `#` starts a comment."""
    for line in manifest.read_text().splitlines():
        if line and not line.startswith("#"):
            path, _, text = line.partition(":")
            write(root, path, text[1:] + "\n")
    return root


def build(root: Path, host: Host) -> Path:
    """The files of a kernel that runs on `host`."""
    write(root, f"{CPU}/online", cpuset.format(host.online) + "\n")
    write(root, f"{CPU}/isolated", cpuset.format(host.isolated) + "\n")
    write(root, f"{CPU}/nohz_full", cpuset.format(host.nohz_full) + "\n")
    write(root, f"{NODE}/online", cpuset.format(host.nodes) + "\n")
    for node, cpus in host.nodes.items():
        write(root, f"{NODE}/node{node}/cpulist", cpuset.format(cpus) + "\n")
    for core in host.cores:
        for cpu in core:
            write(root, f"{CPU}/cpu{cpu}/topology/thread_siblings_list", cpuset.format(core) + "\n")
    for group in host.l3:
        for cpu in group:
            own = frozenset((cpu,))
            for index, level, cpus in ((0, 1, own), (1, 1, own), (2, 2, own), (3, 3, group)):
                write(root, f"{CPU}/cpu{cpu}/cache/index{index}/level", f"{level}\n")
                write(root, f"{CPU}/cpu{cpu}/cache/index{index}/shared_cpu_list", cpuset.format(cpus) + "\n")
    return root
