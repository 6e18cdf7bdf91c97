"""A guest as its domain XML describes it: the facts that a placement needs, and where the bytes of the pins are.

Values only; `domainxml` reads them. Source of every rule: libvirt's domain_conf.c and its RELAX NG schema.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from emupin.guest.xmltree import Element

    Cpus = frozenset[int]
    Nodes = frozenset[int]

EMULATOR = "emulator"
"""Whose pin it is, among the numbers of iothreads as text."""

HIGHEST_INDEX = 65535
"""Of a vCPU or an iothread: far above what any QEMU machine type takes, far below what would exhaust memory."""

OTHER_DRIVERS = frozenset((
    "bhyve", "hyperv", "linux", "lxc", "openvz", "parallels", "phyp", "uml", "vbox", "vmware", "vz", "xen",
))  # fmt: skip
"""The `type` of guests that are none of the QEMU driver's (virDomainVirtType): they have no emulator threads."""

AHEAD_OF_CPUTUNE = {name: rank for rank, name in enumerate((
    "name", "uuid", "genid", "title", "description", "metadata", "maxMemory", "memory", "currentMemory", "blkiotune",
    "memtune", "memoryBacking", "vcpu", "vcpus", "iothreads", "iothreadids", "defaultiothread",
))}  # fmt: skip
"""Children of `<domain>` up to where libvirt prints `<cputune>`, ranked as it prints them (virDomainDefFormat)."""

AHEAD_OF_EMULATORPIN = frozenset((
    "shares", "global_period", "global_quota", "period", "quota", "emulator_period", "emulator_quota",
    "iothread_period", "iothread_quota", "vcpupin",
))  # fmt: skip
"""Children of `<cputune>` that libvirt prints ahead of `<emulatorpin>` (virDomainCputuneDefFormat)."""


class Layout(Frozen):
    """The elements that a rewrite may touch or must stand beside, found when they are asked for: most never are."""

    domain: Element
    """With its children ahead of `<cputune>`, and that."""

    @property
    def before_cputune(self) -> Element | None:
        """The child of `<domain>` behind which libvirt would print a `<cputune>`; None where there is none."""
        ahead = [child for child in self.domain.children if child.plain in AHEAD_OF_CPUTUNE]
        return max(ahead, key=lambda child: (AHEAD_OF_CPUTUNE[child.name], child.start), default=None)

    @property
    def cputune(self) -> Element | None:
        return self.domain.first("cputune")

    @property
    def tunes(self) -> list[Element]:
        """All children of `<cputune>`."""
        return self.cputune.children if self.cputune else []

    @property
    def before_emulatorpin(self) -> Element | None:
        """The child of `<cputune>` behind which libvirt would print an `<emulatorpin>`; None where there is none."""
        return next((child for child in reversed(self.tunes) if child.plain in AHEAD_OF_EMULATORPIN), None)

    @property
    def emulatorpin(self) -> Element | None:
        return self.domain.first("cputune", "emulatorpin")

    def iothreadpins(self, ids: Iterable[int]) -> dict[int, Element]:
        """The `<iothreadpin>` elements by the `ids` they are for, given in the document's order."""
        return dict(zip(ids, [child for child in self.tunes if child.plain == "iothreadpin"]))


class Memory(Frozen):
    """The memory of one guest. Cells are the guest's own NUMA nodes, nodes are the host's."""

    immediate: bool = False
    """`<allocation mode='immediate'/>`: all memory is allocated before the guest starts."""
    hugepages: tuple[Nodes | None, ...] = ()
    """The cells that each `<page>` is for, None for all; one None for a `<hugepages>` without any."""
    cells: tuple[int, ...] = ()
    mode: str | None = None
    """Of `<numatune><memory>`: strict, preferred, interleave or restrictive; None where the guest has none."""
    automatic: bool = False
    """`placement='auto'`: numad chooses the nodes."""
    nodes: Nodes | None = None
    """The nodes of every cell without some of its own."""
    memnodes: Mapping[int, Nodes] = {}
    """Nodes by cell."""
    devices: tuple[Nodes, ...] = ()
    """Of DIMMs that are allocated before the guest starts."""

    @property
    def preallocated(self) -> tuple[Nodes, ...]:
        """The different nodes of parts of the memory that are bound to some and allocated before the guest starts.

        As qemuBuildMemoryBackendProps has it: a guest without cells has one part; nothing is bound by `restrictive`.
        Of a page in a guest without cells libvirt drops the `nodeset`.
        """
        if self.mode == "restrictive":
            return ()
        parts: list[tuple[int | None, Nodes | None]] = [(cell, self.memnodes.get(cell)) for cell in self.cells]
        parts = [(cell, nodes or self.nodes) for cell, nodes in parts or [(None, None)]]
        in_whole = self.immediate or None in self.hugepages or (self.hugepages and not self.cells)
        if not in_whole:
            large: Nodes = frozenset().union(*{cells for cells in self.hugepages if cells})
            parts = [(cell, nodes) for cell, nodes in parts if cell in large]
        return tuple(dict.fromkeys([*(nodes for _, nodes in parts if nodes), *self.devices]))


class Domain(Frozen):
    """What a domain XML says about CPUs, and what a policy's `match` looks at."""

    kind: str
    """The `type` attribute: qemu, kvm, …"""
    id: str | None
    """libvirt's number of the running guest; None where the XML is not a live one."""
    name: str
    uuid: str | None
    vcpus: int
    """The maximum, hotpluggable ones included."""
    offline: frozenset[int]
    """vCPUs that are defined but not plugged in."""
    cpuset: Cpus | None
    """`<vcpu cpuset>`: where every vCPU without a pin of its own runs."""
    automatic: bool
    """`<vcpu placement='auto'>`: numad decides where libvirt starts unpinned vCPUs."""
    vcpupins: Mapping[int, Cpus]
    emulatorpin: Cpus | None
    iothreads: tuple[int, ...]
    iothreadpins: Mapping[int, Cpus]
    realtime: frozenset[int]
    """vCPUs with a `<vcpusched>` of fifo or rr."""
    interfaces: frozenset[str] | None
    """Types of the guest's `<interface>` elements; None where `devices` was not looked into."""
    flavor: str | None
    """Nova's, like `project`; None where there is none, or `metadata` was not looked into."""
    project: str | None
    layout: Layout
    extra_specs: Mapping[str, str] | None = None
    """Nova's, of the flavor, like `flavor`."""
    os_type: str | None = None
    """`<os><type>`: hvm, exe, xen, …"""
    partition: str | None = None
    """`<resource><partition>`: the cgroup that the guest's is made in."""
    memory: Memory = Memory()
    numad: Cpus | None = None
    """What numad chose for a running guest that is `automatic`; a domain XML does not say, libvirt's status file does.
    """

    @property
    def unpinned(self) -> Cpus | None:
        """The CPUs of vCPUs without a pin of their own; None where nothing restricts them, or numad will."""
        return self.numad if self.automatic else self.cpuset

    @property
    def pins(self) -> dict[str, Cpus]:
        """The pins of the emulator threads and of the iothreads, by whose they are."""
        own = {EMULATOR: self.emulatorpin} if self.emulatorpin else {}
        return {**own, **{str(iothread): cpus for iothread, cpus in self.iothreadpins.items()}}

    def differing(self, cpus: Cpus, follow: bool) -> dict[str, Cpus | None]:
        """The pins that are not there yet where the emulator's is to be `cpus`, and the iothreads `follow`, if so."""
        keys, there = (EMULATOR, *map(str, self.iothreads if follow else ())), self.pins
        return {key: cpus for key in keys if there.get(key) != cpus}

    def vcpu_cpus(self, vcpu: int) -> Cpus | None:
        """The CPUs that `vcpu` may run on; None as `unpinned` is."""
        return self.vcpupins.get(vcpu, self.unpinned)


def element(key: str) -> str:
    """What a domain XML calls the pin of the emulator threads, or of an iothread by its number, for people."""
    return "<emulatorpin>" if key == EMULATOR else f"<iothreadpin> of iothread{key}"


def command(key: str, guest: str, cpus: str) -> str:
    """What an operator types to change that pin in the definition of `guest`."""
    pin = f"emulatorpin {guest}" if key == EMULATOR else f"iothreadpin {guest} {key}"
    return f"virsh {pin} {cpus} --config"


def of_one_core(pins: Iterable[Cpus], cores: Sequence[Cpus]) -> frozenset[Cpus]:
    """The different `pins` that lie within one core: a vCPU on such CPUs is pinned, on more than that it floats.

    `cores` are those that are online. Where none is known, a core is one CPU. A guest may have thousands of vCPUs, and
    as many CPUs for each: nobody asks of each of them.
    """
    different = frozenset(pins)
    single = frozenset(each for each in different if len(each) == 1)
    several = different - single
    if not several or not cores:
        return single
    core_of = {cpu: number for number, core in enumerate(cores) for cpu in core}
    return single | {each for each in several if len({core_of[cpu] for cpu in each if cpu in core_of}) == 1}


class Status(Frozen):
    """libvirt's status XML of a running guest, `/run/libvirt/qemu/NAME.xml`."""

    pid: int
    """0 while the guest is being started and has no process yet."""
    state: str
    vcpu_tids: Mapping[int, int]
    """Thread ids by vCPU index."""
    domain: Domain
    reason: str = ""
    """Why it is in that state."""

    @property
    def has_come(self) -> bool:
        """Whether the guest is here for good: libvirt defines what comes in by migration only once that has ended.

        A guest that was started paused has the reason `user`, what comes in or is restored `migration`.
        """
        return self.state == "running" or self.reason == "user"
