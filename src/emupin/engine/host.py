"""Facts of the machine that a placement depends on, read below a root folder: `/`, or a recorded host."""

from __future__ import annotations

import errno

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.frozen import Frozen
from emupin.base.jsonline import encode
from emupin.base.system import os
from emupin.engine import confinement, libvirtversion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from emupin.base.jsonline import Json

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

VERSION = 1
"""Of the form of a recorded host."""

GONE = frozenset((errno.ENOENT, errno.ENODEV, errno.ENXIO))
"""How a file says that it is not there, or that its CPU went offline meanwhile."""

NONE = frozenset(("", "(null)"))
"""What a kernel may write for no CPU at all."""

LEVELS = (3, 2, 4, 1, 0)
"""The cache's index folders in the order of where its level 3 is most likely."""


class Host(Frozen):
    """A machine's CPUs, online ones only but for `isolated` and `nohz_full`, which are as the kernel says."""

    online: Cpus
    isolated: Cpus = frozenset()
    """Nothing is balanced there: `isolcpus` at boot, or an isolated partition since."""
    nohz_full: Cpus = frozenset()
    nodes: Mapping[int, Cpus] = {}
    """The CPUs of each NUMA node that has any."""
    cores: tuple[Cpus, ...] = ()
    """Sets of sibling CPUs, by their lowest; a CPU whose core is not known is in none."""
    l3: tuple[Cpus, ...] = ()
    """Sets of CPUs that share a level 3 cache, by their lowest; none on many virtual machines."""
    partitions: Mapping[str, Cpus] = {}
    """What the cgroups of guests may have, by libvirt's name of their partition: those that have less than is online,
    or less than the partition above them."""
    possible: Cpus = frozenset()
    """The CPUs that the kernel has room for, online or not; none where that is not known."""
    cgroup: str = ""
    """Of the cgroups with the cpuset controller: v1 or v2; empty where there are none, or it is not known."""
    libvirt: str = ""
    """Its version and that of its package, `9.0.0 10.1.el9_2`; empty where it is not known."""
    interrupts: Cpus = frozenset()
    """Those that handle the interrupts of network cards."""

    def node_of(self, cpu: int) -> int | None:
        """The node of `cpu`; None where it is not known."""
        return next((node for node, cpus in self.nodes.items() if cpu in cpus), None)

    def nodes_of(self, cpus: Iterable[int]) -> frozenset[int]:
        """The nodes that some of `cpus` are on."""
        wanted = frozenset(cpus)
        return frozenset(node for node, members in self.nodes.items() if not wanted.isdisjoint(members))

    def siblings(self, cpu: int) -> Cpus:
        """The CPUs of the core that `cpu` belongs to, itself included."""
        return next((core for core in self.cores if cpu in core), frozenset((cpu,)))

    def within(self, partition: str | None) -> Cpus:
        """The CPUs that the cgroup of a guest in `partition` may have, None being libvirt's default one."""
        name = partition or confinement.DEFAULT
        while name and name not in self.partitions:
            name = name.rpartition("/")[0]
        return self.online & self.partitions.get(name or "/", self.online)

    def confined(self, partition: str | None, cpus: Cpus | None) -> Host:
        """This host, where guests in `partition` may have `cpus`; None: nothing confines them."""
        narrow = cpus is not None and not self.online <= cpus
        return self.replace(partitions={partition or confinement.DEFAULT: cpus}) if narrow else self

    def balanced(self, cpus: Cpus) -> Cpus:
        """Where a thread runs that may run on `cpus`: the kernel moves none from one isolated CPU to another."""
        return cpus - self.isolated or cpus

    def to_plain(self) -> tuple[Any, ...]:
        """Tuples, sets, dicts and numbers only, which `marshal` keeps as they are."""
        return tuple(dict(value) if isinstance(value, dict) else value for value in self.__dict__.values())

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> Host:
        """The inverse of `to_plain`."""
        return cls(*plain)


def to_json(host: Host) -> dict[str, Json]:
    """The form of a recorded host: CPU lists as text, keys in one order; of the later ones only those that say more."""
    later: dict[str, Json] = {
        "partitions": {name: cpuset.format(cpus) for name, cpus in sorted(host.partitions.items())},
        "possible": cpuset.format(host.possible),
        "cgroup": host.cgroup,
        "libvirt": host.libvirt,
        "interrupts": cpuset.format(host.interrupts),
    }
    return {
        "emupin_host": VERSION,
        "online": cpuset.format(host.online),
        "isolated": cpuset.format(host.isolated),
        "nohz_full": cpuset.format(host.nohz_full),
        "nodes": {str(node): cpuset.format(cpus) for node, cpus in sorted(host.nodes.items())},
        "cores": [cpuset.format(core) for core in host.cores],
        "l3": [cpuset.format(cpus) for cpus in host.l3],
        **{key: value for key, value in later.items() if value},
    }


def canonical(host: Host) -> bytes:
    """The one text of `host`, by whose SHA-256 the audit trail names it; interrupts, which move about, left out."""
    return encode(to_json(host.replace(interrupts=frozenset()))).encode("ascii") + b"\n"


# -- reading a machine ------------------------------------------------------------------------------------------------


def read(root: str) -> Host:
    """The host whose kernel files lie below `root`.

    Raises HostError where a file cannot be read or does not hold a CPU list. `online` is used, never `offline`, which
    lists absent CPUs too, nor this process's own affinity. What a kernel leaves out (an architecture without caches,
    a CPU that goes offline meanwhile) is not known, and no error.
    """
    return _with_partitions(topology(root), confinement.read_all(root))


def _with_partitions(host: Host, found: Mapping[str, Cpus]) -> Host:
    """`host` with those of the partitions `found` that have less than what is above them."""
    for name in sorted(found):
        if found[name] & host.online != host.within(name):
            host = host.replace(partitions={**host.partitions, name: found[name]})
    return host


def topology(root: str) -> Host:
    """All of a host but its partitions: what changes only with a CPU, a node, a boot or another libvirt.

    Raises HostError as `read` does.
    """
    online = cpus_in(root, ONLINE)
    if not online:
        raise HostError(root + ONLINE, "is not there, or holds no CPU", "is this a Linux host's file tree?")
    nodes = _nodes(root, online)
    return Host(
        online,
        cpus_in(root, ISOLATED_AT_BOOT) | cpus_in(root, ISOLATED_SINCE),
        cpus_in(root, NOHZ_FULL),
        nodes,
        _cores(root, online),
        _caches(root, nodes),
        possible=cpus_in(root, POSSIBLE),
        cgroup=confinement.version(root) or "",
        libvirt=libvirtversion.read(root),
    )


def _nodes(root: str, online: Cpus) -> dict[int, Cpus]:
    """The online CPUs of each node that has some. A kernel without NUMA has one node, as libvirt sees it."""
    text = text_of(root, NODES)
    if text is None:
        return {0: online}
    lists = {node: cpus_in(root, f"{NODE}/node{node}/cpulist") for node in sorted(_parse(root, NODES, text))}
    return {node: cpus & online for node, cpus in lists.items() if cpus & online}


def _cores(root: str, online: Cpus) -> tuple[Cpus, ...]:
    if (text_of(root, SMT) or "").strip() == "0":
        return tuple(frozenset((cpu,)) for cpu in sorted(online))
    return _groups(online, lambda cpu: cpus_in(root, f"{CPU}/cpu{cpu}/topology/thread_siblings_list"))


def _caches(root: str, nodes: Mapping[int, Cpus]) -> tuple[Cpus, ...]:
    """The level 3 caches. Where a node's first CPU has none, the node's others are not asked: there are thousands."""
    having: Cpus = frozenset().union(*(cpus for cpus in nodes.values() if _l3_of(root, min(cpus))))
    return _groups(having, lambda cpu: _l3_of(root, cpu))


def _groups(online: Cpus, group_of: Callable[[int], Cpus]) -> tuple[Cpus, ...]:
    """The groups that the CPUs fall into; each is asked for once, a CPU that is in none stays out."""
    groups: list[Cpus] = []
    left = set(online)
    for cpu in sorted(online):
        if cpu in left:
            group = group_of(cpu) & left
            left.discard(cpu)
            if group:
                groups.append(group | {cpu})
                left -= group
    return tuple(groups)


def _l3_of(root: str, cpu: int) -> Cpus:
    """The CPUs that share the level 3 cache of `cpu`; none where it has no such cache."""
    for index in LEVELS:
        folder = f"{CPU}/cpu{cpu}/cache/index{index}"
        if (text_of(root, f"{folder}/level") or "").strip() == "3":
            return cpus_in(root, f"{folder}/shared_cpu_list")
    return frozenset()


def text_of(root: str, path: str) -> str | None:
    """A kernel file as text; None where it is not there. Raises HostError."""
    try:
        return os.fsdecode(_read(root + path))
    except OSError as error:
        if error.errno in GONE:
            return None
        raise HostError(root + path, f"cannot be read: {error.strerror}", "is this a Linux host's file tree?") from None


def _read(path: str) -> bytes:
    """A file's bytes, in half the time that a file object takes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while piece := os.read(descriptor, 1 << 16):  # The kernel gives a long list a page at a time.
            data += piece
        return data
    finally:
        os.close(descriptor)


def cpus_in(root: str, path: str) -> Cpus:
    """The CPU list that a kernel file holds; none where it is not there. Raises HostError."""
    text = text_of(root, path)
    return frozenset() if text is None else _parse(root, path, text)


def _parse(root: str, path: str, text: str) -> Cpus:
    stripped = text.strip()
    if stripped in NONE:
        return frozenset()
    try:
        return cpuset.parse(stripped)
    except cpuset.CpuListError as error:
        raise HostError(root + path, f"not a CPU list: {error}", "is this a kernel's /sys?") from None
