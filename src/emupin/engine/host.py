"""Facts of a machine that a placement depends on."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.base.jsonline import encode
from emupin.engine import confinement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from emupin.base.jsonline import Json

    Cpus = frozenset[int]

VERSION = 1
"""Of the form of a recorded host."""


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

    def cpus_of(self, nodes: Iterable[int]) -> Cpus:
        """The CPUs of `nodes`; one that is not there has none."""
        return frozenset().union(*(self.nodes.get(node, frozenset()) for node in nodes))

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
