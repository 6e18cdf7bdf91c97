"""A guest's domain XML reduced to what a decision reads: nothing else of the tenant's leaves its node.

The vocabulary is the reader's own: passwords, command lines, disks and addresses are not in it, so they are never
copied, whatever a future libvirt calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from emupin.guest.domainxml import LONG_SECTIONS, wanted
from emupin.guest.xmltree import NOTHING, Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.xmltree import Element


def excerpt(data: bytes, source: str) -> bytes:
    """The excerpt of a domain XML, or of the one in libvirt's status XML of a running guest. Raises DomainError.

    What numad chose stands beside that, so around both the status XML's own root is kept.
    """
    inside = wanted(LONG_SECTIONS, data)
    if b"<domstatus" in data:
        status = Document(data, source, "domstatus", "give libvirt's status XML").parse(
            {"numad": NOTHING, "domain": inside}
        )
        domain = status.first("domain")
        if domain is None:
            Document(data, source, "domain", "").refuse(0, "has no <domain>", "is this libvirt's status XML?")
        root = status if status.first("numad") else domain
    else:
        root = Document(data, source, "domain", "give a domain XML").parse(inside)
    return ("\n".join(_lines(root, "")) + "\n").encode()


def _lines(element: Element, indent: str) -> Iterator[str]:
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in element.attributes.items())
    head, text = f"{indent}<{element.name}{attributes}", escape(element.text, {"\r": "&#13;"})
    if not element.children:
        yield f"{head}>{text}</{element.name}>" if text else f"{head}/>"
        return
    yield f"{head}>"
    for child in element.children:
        yield from _lines(child, indent + "  ")
    yield f"{indent}</{element.name}>"
