"""What confines a guest from above: the CPUs of the cgroup that libvirt makes the guest's own in.

That cgroup is called a partition: a domain XML names one in `<resource>`, else it is `/machine`. With systemd's
machined it is a slice, else a plain cgroup. One that is not there yet gets what is above it, less what systemd's unit
files take from a slice. Sources: virSystemdMakeSliceName and virCgroupSetPartitionSuffix of libvirt.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import read_bytes
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Cpus = frozenset[int]

DEFAULT = "/machine"
"""The partition of a guest whose domain XML names none."""

HIERARCHIES = {
    "v1": ("/sys/fs/cgroup/cpuset", "cpuset.cpus"),
    "v2": ("/sys/fs/cgroup", "cpuset.cpus.effective"),
}
"""By the version of cgroups: where the cpuset hierarchy is, and the file that says what a cgroup may give on."""

SYSTEMD = "/run/systemd/system"
"""There where systemd is process 1 (sd_booted(3))."""
MACHINED = ("/run/systemd/machines", "/usr/lib/systemd/systemd-machined", "/lib/systemd/systemd-machined")
"""One of them is there where machined can be asked for a slice."""

FIXED = frozenset(("machine", "system", "user"))
"""Cgroups at the top whose names libvirt takes as they are."""
CONTROLLERS = frozenset(
    ("cgroup", "cpuset", "cpu", "cpuacct", "blkio", "io", "memory", "devices", "freezer", "net_cls", "perf_event",
     "net_prio", "hugetlb", "pids", "rdma", "misc")
)  # fmt: skip
"""A cgroup's name that could be one of their files' is escaped."""
VALID = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")
"""Characters that systemd takes in a unit's name as they are."""


def version(root: str) -> str | None:
    """Of the cgroups that have the cpuset controller: v1 or v2; None where no cpuset holds any guest."""
    return next((key for key, (top, file) in HIERARCHIES.items() if os.path.exists(f"{root}{top}/{file}")), None)


def read(root: str, partition: str) -> Cpus | None:
    """The CPUs that guests in `partition` may have; None where no cpuset confines them. Raises HostError."""
    found = version(root)
    if found is None:
        return None
    top, file = HIERARCHIES[found]
    names = _slices(partition) if has_slices(root) else _folders(partition)
    folders = [root + "/".join((top, *names[:depth])) for depth in range(len(names), -1, -1)]
    cpus = next((held for folder in folders if (held := _listed(f"{folder}/{file}"))), None)
    for name, folder in zip(reversed(names), folders):
        if cpus and name.endswith(".slice") and not os.path.isdir(folder):
            from emupin.engine import unitfiles

            cpus &= unitfiles.allowed_cpus(root, name) or cpus
    return cpus


def has_slices(root: str) -> bool:
    """Whether libvirt asks machined for a guest's cgroup."""
    return os.path.isdir(root + SYSTEMD) and any(os.path.exists(root + path) for path in MACHINED)


# -- libvirt's and systemd's names ------------------------------------------------------------------------------------


def _slices(partition: str) -> list[str]:
    """The slices from the top down: `machine.slice` and `machine-rt.slice` for `/machine/rt`."""
    parts = [_escaped(part) for part in partition.split("/") if part]
    return ["-".join(parts[:depth]) + ".slice" for depth in range(1, len(parts) + 1)]


def _escaped(part: str) -> str:
    escaped = "".join(each if each in VALID else "".join(f"\\x{byte:02x}" for byte in each.encode()) for each in part)
    return f"\\x2e{escaped[1:]}" if escaped.startswith(".") else escaped


def _folders(partition: str) -> list[str]:
    """The cgroups from the top down: `machine` and `rt.partition` for `/machine/rt`."""
    parts = [part for part in partition.split("/") if part]
    return [part if not depth and part in FIXED else _suffixed(part) for depth, part in enumerate(parts)]


def _suffixed(part: str) -> str:
    name = part if "." in part else f"{part}.partition"
    return f"_{name}" if name[0] in "_." or name.partition(".")[0] in CONTROLLERS else name


# -- files ------------------------------------------------------------------------------------------------------------


def _listed(path: str) -> Cpus | None:
    """The CPUs in a kernel's file; None where it is not there, or has none, and what is above counts."""
    try:
        return cpuset.parse_kernel(os.fsdecode(read_bytes(path)).strip()) or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "is this a Linux host's file tree?") from None
    except cpuset.CpuListError as error:
        raise HostError(path, f"not a CPU list: {error}", "is this a kernel's cgroup?") from None
