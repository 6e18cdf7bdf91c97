"""Values in a domain XML, read as libvirt reads them: what it would reject is an error, with the place."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import DomainError
from emupin.guest.domain import HIGHEST_INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from emupin.guest.domain import Cpus
    from emupin.guest.xmltree import Document, Element


LONGEST_SHOWN = 200
"""Characters of a value in an error."""


def number_in(text: str) -> int | None:
    """`text` as a whole number of ASCII digits; None where it is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def number(document: Document, element: Element, name: str, highest: int = HIGHEST_INDEX) -> int:
    """The attribute `name`. Raises DomainError."""
    value = number_in(element.attributes.get(name, ""))
    if value is None or value > highest:
        what = f" is not a number up to {highest}"
        _refuse(document, element, name, what, "give a number such as 0")
    return value


def cpus(document: Document, element: Element, name: str) -> Cpus:
    """The attribute `name`, a list of CPUs or, with the same syntax, of nodes or vCPUs; equal texts give one object.

    Raises DomainError.
    """
    text = element.attributes.get(name, "")
    found = document.lists.get(text)
    if found is None:
        try:
            found = document.lists[text] = cpuset.parse(text)
        except cpuset.CpuListError as error:
            _refuse(document, element, name, f": {error}", "give a list such as 0-3,8")
        document.named += len(found)
        if document.named > cpuset.MOST_NAMED:
            what = f"its CPU lists name more than {cpuset.MOST_NAMED} CPUs together"
            document.refuse(element.start, what, "no host needs that: wrong file?")
    return found


def nodes_in(document: Document, element: Element) -> frozenset[int]:
    """The text of `element`, a list of nodes. Raises DomainError."""
    try:
        return cpuset.parse(element.text.strip())
    except cpuset.CpuListError as error:
        document.refuse(element.start, f"<{element.name}>{element.text[:40]}: {error}", "give a list such as 0-1")


def _refuse(document: Document, element: Element, name: str, what: str, hint: str) -> NoReturn:
    tag, value = element.name, element.attributes.get(name)
    shown = value if value is None or len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
    if value is None:
        document.refuse(element.start, f"<{tag}> has no attribute {name!r}", "libvirt requires it")
    document.refuse(element.start, f"<{tag} {name}={shown!r}>{what}", hint)


def count(document: Document, element: Element | None, default: int) -> int:
    """The text of `element`; `default` where there is none. Raises DomainError."""
    if element is None:
        return default
    value = number_in(element.text.strip())
    if value is None or value > HIGHEST_INDEX:
        what = f"<{element.name}>{element.text[:40]}</{element.name}> is not a count"
        raise DomainError(document.source, what, "give a number such as 4")
    return value


def uuid(document: Document, element: Element | None) -> str | None:
    """The UUID in its usual form; libvirt reads it with or without hyphens, in either case (virUUIDParse).

    Raises DomainError.
    """
    if element is None:
        return None
    digits = element.text.strip().replace("-", "").lower()
    if len(digits) != 32 or digits.strip("0123456789abcdef"):
        raise DomainError(document.source, f"<uuid>{element.text[:60]}</uuid> is not a UUID", "`uuidgen` makes one")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
