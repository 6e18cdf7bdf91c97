"""What a domain XML says of a guest's memory: where it comes from, and on which of the host's nodes."""

from __future__ import annotations

from emupin.guest.domain import Memory
from emupin.guest.xmltree import NOTHING, TEXT
from emupin.guest.xmlvalues import cpus, nodes_in, number, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.xmltree import Document, Element

    Nodes = frozenset[int]

WANTED = {
    "memoryBacking": {"hugepages": {"page": NOTHING}, "allocation": NOTHING},
    "numatune": {"memory": NOTHING, "memnode": NOTHING},
    "cpu": {"numa": {"cell": NOTHING}},
}
"""Inside of `<domain>`."""

DEVICE = b"dimm'", b'dimm"'
"""Words of a document that has a DIMM, maybe."""
DEVICES = {"memory": {"source": {"nodemask": TEXT, "pagesize": NOTHING}, "target": {"node": TEXT}}}
"""Inside of `<devices>`: looked for where DEVICE is, since devices are most of a document."""


def read(document: Document, domain: Element) -> Memory:
    """What the elements WANTED say of the memory. Raises DomainError."""
    memory = domain.first("numatune", "memory")
    found = Memory(
        immediate=_attribute(domain.first("memoryBacking", "allocation"), "mode") == "immediate",
        hugepages=_hugepages(document, domain),
        cells=_cells(domain.first("cpu", "numa")),
        mode=None if memory is None else memory.attributes.get("mode", "strict"),
        automatic=_attribute(memory, "placement") == "auto",
        nodes=_nodes(document, memory),
        memnodes=_memnodes(document, domain.first("numatune")),
    )
    devices = domain.all("devices", "memory")
    return found.replace(devices=tuple(_allocated_first(document, devices, found))) if devices else found


def _allocated_first(document: Document, devices: list[Element], memory: Memory) -> Iterator[Nodes]:
    """The nodes of DIMMs that are bound to some and allocated before the guest starts: every NVDIMM is.

    As qemuBuildMemoryBackendProps has it: `<nodemask>`, else what the cell has that the device is plugged into. Raises
    DomainError.
    """
    for device in devices:
        mask, cell = device.first("source", "nodemask"), device.first("target", "node")
        place = number_in(cell.text.strip()) if cell else None
        nodes = nodes_in(document, mask) if mask else memory.memnodes.get(place or 0, memory.nodes)
        large = device.first("source", "pagesize") is not None or any(
            cells is None or place in cells for cells in memory.hugepages
        )
        kind = device.attributes.get("model")
        if nodes and (kind == "nvdimm" or (kind == "dimm" and (memory.immediate or large))):
            yield nodes


def _attribute(element: Element | None, name: str) -> str | None:
    return None if element is None else element.attributes.get(name)


def _nodes(document: Document, element: Element | None) -> Nodes | None:
    """The `nodeset` of `element`, of the host's nodes or of the guest's cells; None where it has none."""
    if element is None or "nodeset" not in element.attributes:
        return None
    return cpus(document, element, "nodeset")


def _hugepages(document: Document, domain: Element) -> tuple[Nodes | None, ...]:
    if domain.first("memoryBacking", "hugepages") is None:
        return ()
    return tuple(_nodes(document, page) for page in domain.all("memoryBacking", "hugepages", "page")) or (None,)


def _memnodes(document: Document, tune: Element | None) -> dict[int, Nodes]:
    if tune is None:
        return {}
    return {number(document, each, "cellid"): cpus(document, each, "nodeset") for each in tune.all("memnode")}


def _cells(numa: Element | None) -> tuple[int, ...]:
    """The ids of the cells; one without an id has its place's number (virDomainNumaDefParseXML)."""
    cells = [] if numa is None else numa.all("cell")
    ids = [number_in(cell.attributes.get("id", "")) for cell in cells]
    return tuple(place if each is None else each for place, each in enumerate(ids))
