"""A guest as its domain XML describes it: the facts that a placement needs, and where the bytes of the pins are.

Values only; `domainxml` reads them. Source of every rule: libvirt's domain_conf.c and its RELAX NG schema.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Place = tuple[str, int, int]  # The fields of an Element.
    Cpus = frozenset[int]

HIGHEST_INDEX = 65535
"""Of a vCPU or an iothread: far above what any QEMU machine type takes, far below what would exhaust memory."""

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


class Element(Frozen):
    """Where an element is: the offset of its start tag, and expat's byte index at its end (see `element_end`)."""

    name: str
    start: int
    index: int


class Layout(Frozen):
    """The elements that a rewrite may touch or must stand beside, found when they are asked for: most never are."""

    domain_start: int
    children: Sequence[Place]
    """Those of `<domain>`, at least up to the `<cputune>`."""
    tune: Place | None
    """The `<cputune>`."""
    tunes: Sequence[Place]
    """Its children."""

    @property
    def before_cputune(self) -> Element | None:
        """The child of `<domain>` behind which libvirt would print a `<cputune>`; None where there is none."""
        ahead = [place for place in self.children if place[0] in AHEAD_OF_CPUTUNE]
        return Element(*max(ahead, key=lambda place: (AHEAD_OF_CPUTUNE[place[0]], place[1]))) if ahead else None

    @property
    def cputune(self) -> Element | None:
        return self.tune and Element(*self.tune)

    @property
    def first_tune(self) -> Element | None:
        """The first child of `<cputune>`."""
        return Element(*self.tunes[0]) if self.tunes else None

    @property
    def before_emulatorpin(self) -> Element | None:
        """The child of `<cputune>` behind which libvirt would print an `<emulatorpin>`; None where there is none."""
        return next((Element(*place) for place in reversed(self.tunes) if place[0] in AHEAD_OF_EMULATORPIN), None)

    @property
    def emulatorpin(self) -> Element | None:
        return next((Element(*place) for place in self.tunes if place[0] == "emulatorpin"), None)

    def iothreadpins(self, ids: Iterable[int]) -> dict[int, Element]:
        """The `<iothreadpin>` elements by the `ids` they are for, given in the document's order."""
        return dict(zip(ids, (Element(*place) for place in self.tunes if place[0] == "iothreadpin")))


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

    @property
    def floating(self) -> Cpus | None:
        """The CPUs of vCPUs without a pin of their own; None where nothing restricts them, or numad does."""
        return None if self.automatic else self.cpuset

    def vcpu_cpus(self, vcpu: int) -> Cpus | None:
        """The CPUs that `vcpu` may run on; None as `floating` is."""
        return self.vcpupins.get(vcpu, self.floating)


class Status(Frozen):
    """libvirt's status XML of a running guest, `/run/libvirt/qemu/NAME.xml`."""

    pid: int
    """0 while the guest is being started and has no process yet."""
    state: str
    vcpu_tids: Mapping[int, int]
    """Thread ids by vCPU index."""
    domain: Domain
