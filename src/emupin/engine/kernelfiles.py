"""The kernel's own files about a machine, below a root folder: `/`, or a recorded host."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import read_bytes
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Cpus = frozenset[int]

CPU = "/sys/devices/system/cpu"
ONLINE = f"{CPU}/online"
ISOLATED_AT_BOOT = f"{CPU}/isolated"
ISOLATED_SINCE = "/sys/fs/cgroup/cpuset.cpus.isolated"
"""CPUs of isolated partitions (cgroup v2, Linux 6.12)."""
POSSIBLE = f"{CPU}/possible"
NOHZ_FULL = f"{CPU}/nohz_full"
SMT = f"{CPU}/smt/active"
"""`0` where no core has a second CPU online: a file that spares reading one for every CPU."""
NODE = "/sys/devices/system/node"
NODES = f"{NODE}/online"

ENOENT, ENXIO, ENODEV = 2, 6, 19
"""The same wherever Linux runs; to import `errno` takes as long as two of these modules."""
GONE = frozenset((ENOENT, ENXIO, ENODEV))
"""How a file says that it is not there, or that its CPU went offline meanwhile."""

NONE = frozenset(("", "(null)"))
"""What a kernel may write for no CPU at all."""


def text_of(root: str, path: str) -> str | None:
    """A kernel file as text; None where it is not there. Raises HostError."""
    try:
        return os.fsdecode(read_bytes(root + path))
    except OSError as error:
        if error.errno in GONE:
            return None
        raise HostError(root + path, f"cannot be read: {error.strerror}", "is this a Linux host's file tree?") from None


def cpus_in(root: str, path: str) -> Cpus:
    """The CPU list that a kernel file holds; none where it is not there. Raises HostError."""
    text = text_of(root, path)
    return frozenset() if text is None else parse(root, path, text)


def parse(root: str, path: str, text: str) -> Cpus:
    """The CPU list `text` that the kernel file at `path` holds. Raises HostError."""
    stripped = text.strip()
    if stripped in NONE:
        return frozenset()
    try:
        return cpuset.parse(stripped)
    except cpuset.CpuListError as error:
        raise HostError(root + path, f"not a CPU list: {error}", "is this a kernel's /sys?") from None
