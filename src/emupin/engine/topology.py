"""A machine read below a root folder: `/`, or a recorded host. That is thousands of files (see `hostcache`)."""

from __future__ import annotations

from emupin.base.errors import HostError
from emupin.engine import confinement, libvirtversion, partitions
from emupin.engine.host import Host
from emupin.engine.kernelfiles import (
    CPU,
    ISOLATED_AT_BOOT,
    ISOLATED_SINCE,
    NODE,
    NODES,
    NOHZ_FULL,
    ONLINE,
    POSSIBLE,
    SMT,
    cpus_in,
    parse,
    text_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Cpus = frozenset[int]

LEVELS = (3, 2, 4, 1, 0)
"""The cache's index folders in the order of where its level 3 is most likely."""


def read(root: str) -> Host:
    """The host whose kernel files lie below `root`.

    Raises HostError where a file cannot be read or does not hold a CPU list. `online` is used, never `offline`, which
    lists absent CPUs too, nor this process's own affinity. What a kernel leaves out (an architecture without caches,
    a CPU that goes offline meanwhile) is not known, and no error.
    """
    return _with_partitions(without_partitions(root), partitions.read_all(root))


def _with_partitions(host: Host, found: Mapping[str, Cpus]) -> Host:
    """`host` with those of the partitions `found` that have less than what is above them."""
    for name in sorted(found):
        if found[name] & host.online != host.within(name):
            host = host.replace(partitions={**host.partitions, name: found[name]})
    return host


def without_partitions(root: str) -> Host:
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
    lists = {node: cpus_in(root, f"{NODE}/node{node}/cpulist") for node in sorted(parse(root, NODES, text))}
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
