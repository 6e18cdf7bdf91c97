"""libvirt's status files, one for each running guest: its process, its vCPUs' threads, and its live domain XML."""

from __future__ import annotations

from emupin.base.errors import DomainError
from emupin.guest.domain import Status
from emupin.guest.domainxml import LONG_SECTIONS, DomainReader, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domainxml import Attributes

HIGHEST_TID = 4194304
"""Of any thread (the kernel's PID_MAX_LIMIT)."""


def read(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Status:
    """The facts of the status XML `data`. Raises DomainError as `domainxml.read` does."""
    reader = StatusReader(data, source, sections)
    try:
        reader.parse()
        return reader.status()
    finally:
        reader.close()


class StatusReader(DomainReader):
    """One pass over a document whose root is `<domstatus>`, libvirt's wrapping of a live `<domain>`."""

    def __init__(self, data: bytes, source: str, sections: frozenset[str]) -> None:
        super().__init__(data, source, sections)
        self.inside: list[str] = []
        """The elements that are open below `<domstatus>`, outside `<domain>`."""
        self.wrapping: Attributes = {}
        self.vcpu_tids: dict[int, int] = {}

    def start_root(self, name: str, attributes: Attributes) -> None:
        if name != "domstatus":
            self.refuse(f"the root element is <{name}>, not <domstatus>", "is this one of libvirt's status files?")
        self.wrapping = attributes
        self.end_domain()

    def end_domain(self) -> None:
        self.parser.StartElementHandler = self.start_in_domstatus
        self.parser.EndElementHandler = self.end_in_domstatus

    def start_in_domstatus(self, name: str, attributes: Attributes) -> None:
        if name == "domain" and not self.inside:
            self.start_domain(attributes)
            return
        if name == "vcpu" and self.inside == ["vcpus"] and "pid" in attributes:
            self.vcpu_tids[self.number(name, "id", attributes)] = self.number(name, "pid", attributes, HIGHEST_TID)
        self.inside.append(name)

    def end_in_domstatus(self, _name: str) -> None:
        if self.inside:
            self.inside.pop()

    def status(self) -> Status:
        if not self.root:
            raise DomainError(self.source, "<domstatus> holds no <domain>", "is this one of libvirt's status files?")
        pid = number_in(self.wrapping.get("pid", "")) or 0
        return Status(pid, self.wrapping.get("state", ""), self.vcpu_tids, self.domain())
