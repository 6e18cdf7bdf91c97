"""What confines a guest from above: the CPUs of the cgroup that libvirt makes the guest's own in.

That cgroup is called a partition: a domain XML names one in `<resource>`, else it is `/machine`. With systemd's
machined it is a slice, else a plain cgroup. One that is not there yet gets what is above it, less what systemd's unit
files take from a slice. Sources: virSystemdMakeSliceName and virCgroupSetPartitionSuffix of libvirt, systemd.unit(5).
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

UNITS = tuple(
    f"{place}/systemd/{kind}"
    for kind, places in (("system.control", ("/etc", "/run")), ("system", ("/etc", "/run", "/usr/lib", "/lib")))
    for place in places
)
"""Where systemd has its unit files, the ones that win first."""

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
    names = _slices(partition) if _has_slices(root) else _folders(partition)
    folders = [root + "/".join((top, *names[:depth])) for depth in range(len(names), -1, -1)]
    cpus = next((held for folder in folders if (held := _listed(f"{folder}/{file}"))), None)
    for name, folder in zip(reversed(names), folders):
        if cpus and name.endswith(".slice") and not os.path.isdir(folder):
            cpus &= _allowed(root, name) or cpus
    return cpus


def read_all(root: str) -> dict[str, Cpus]:
    """What guests may have in each partition that is there, and in the default one. Raises HostError."""
    found = version(root)
    if found is None:
        return {}
    top, _ = HIERARCHIES[found]
    below = _partitions_of_slices if _has_slices(root) else _partitions_of_folders
    names = dict.fromkeys(("/", DEFAULT, *below(root + top, "")))
    return {name: cpus for name in names if (cpus := read(root, name))}


def _has_slices(root: str) -> bool:
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


def _partition_of(name: str) -> str:
    """The partition that a slice is: the inverse of `_slices`."""
    first, *rest = name.removesuffix(".slice").replace("-", "/").split("\\x")
    data = os.fsencode(first) + b"".join(bytes.fromhex(each[:2]) + os.fsencode(each[2:]) for each in rest)
    return "/" + os.fsdecode(data)


def _folders(partition: str) -> list[str]:
    """The cgroups from the top down: `machine` and `rt.partition` for `/machine/rt`."""
    parts = [part for part in partition.split("/") if part]
    return [part if not depth and part in FIXED else _suffixed(part) for depth, part in enumerate(parts)]


def _suffixed(part: str) -> str:
    name = part if "." in part else f"{part}.partition"
    return f"_{name}" if name[0] in "_." or name.partition(".")[0] in CONTROLLERS else name


def _partitions_of_slices(folder: str, _above: str) -> Iterator[str]:
    """The partitions that slices in `folder` and below are, by their own names. Raises HostError."""
    for name in _names(folder):
        if name.endswith(".slice"):
            yield _partition_of(name)
            yield from _partitions_of_slices(f"{folder}/{name}", "")


def _partitions_of_folders(folder: str, above: str) -> Iterator[str]:
    """The partitions that cgroups in `folder` and below are. Raises HostError."""
    for name in _names(folder):
        if name.endswith(".partition") or (not above and name in FIXED):
            partition = f"{above}/{name.removesuffix('.partition').removeprefix('_')}"
            yield partition
            yield from _partitions_of_folders(f"{folder}/{name}", partition)


# -- files ------------------------------------------------------------------------------------------------------------


def _listed(path: str) -> Cpus | None:
    """The CPUs in a kernel's file; None where it is not there, or has none, and what is above counts."""
    try:
        with open(path, "rb", buffering=0) as file:
            return cpuset.parse_kernel(os.fsdecode(file.read()).strip()) or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "is this a Linux host's file tree?") from None
    except cpuset.CpuListError as error:
        raise HostError(path, f"not a CPU list: {error}", "is this a kernel's cgroup?") from None


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "root may list it") from None


def _allowed(root: str, unit: str) -> Cpus | None:
    """`AllowedCPUs=` of a slice that is not active yet, from its unit file and drop-ins; None where they have none."""
    allowed: set[int] = set()
    for path in (*_first(root, unit), *_drop_ins(root, unit)):
        for line in _lines(path):
            key, _, value = line.partition("=")
            if key.strip() == "AllowedCPUs":
                allowed = allowed | _cpu_list(path, value) if value.strip() else set()
    return frozenset(allowed) or None


def _first(root: str, unit: str) -> Sequence[str]:
    return [path for place in UNITS if os.path.isfile(path := f"{root}{place}/{unit}")][:1]


def _drop_ins(root: str, unit: str) -> list[str]:
    """By their names, whatever folder they are in; of two with the same name the one in the folder that wins."""
    found: dict[str, str] = {}
    for place in UNITS:
        folder = f"{root}{place}/{unit}.d"
        for name in _names(folder):
            if name.endswith(".conf"):
                found.setdefault(name, f"{folder}/{name}")
    return [found[name] for name in sorted(found)]


def _lines(path: str) -> list[str]:
    """Raises HostError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "root may read it") from None


def _cpu_list(path: str, value: str) -> Cpus:
    """systemd takes blanks for commas."""
    try:
        return cpuset.parse(",".join(value.replace(",", " ").split()))
    except cpuset.CpuListError as error:
        raise HostError(path, f"AllowedCPUs: {error}", "`systemctl cat` shows the unit") from None
