"""What a domain XML says of a guest's memory: where it comes from, and on which of the host's nodes."""

from __future__ import annotations

from emupin.guest.domain import Memory
from emupin.guest.xmltree import NOTHING
from emupin.guest.xmlvalues import cpus, number, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.xmltree import Document, Element

    Nodes = frozenset[int]

WANTED = {
    "memoryBacking": {"hugepages": {"page": NOTHING}, "allocation": NOTHING},
    "numatune": {"memory": NOTHING, "memnode": NOTHING},
    "cpu": {"numa": {"cell": NOTHING}},
}
"""Inside of `<domain>`."""


def read(document: Document, domain: Element) -> Memory:
    """What the elements WANTED say of the memory. Raises DomainError."""
    memory = domain.first("numatune", "memory")
    return Memory(
        immediate=_attribute(domain.first("memoryBacking", "allocation"), "mode") == "immediate",
        hugepages=_hugepages(document, domain),
        cells=_cells(domain.first("cpu", "numa")),
        mode=None if memory is None else memory.attributes.get("mode", "strict"),
        automatic=_attribute(memory, "placement") == "auto",
        nodes=_nodes(document, memory),
        memnodes=_memnodes(document, domain.first("numatune")),
    )


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
