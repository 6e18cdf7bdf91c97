"""libvirt's status files, one for each running guest: its process, its vCPUs' threads, and its live domain XML."""

from __future__ import annotations

from emupin.base.errors import DomainError
from emupin.guest.domain import Status
from emupin.guest.domainxml import LONG_SECTIONS, interpret, wanted
from emupin.guest.xmltree import NOTHING, Document
from emupin.guest.xmlvalues import cpus, number, number_in

HIGHEST_TID = 4194304
"""Of any thread (the kernel's PID_MAX_LIMIT)."""

HINT = "check that this is one of libvirt's status files"


def read(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Status:
    """The facts of the status XML `data`. Raises DomainError as `domainxml.read` does."""
    document = Document(data, source, "domstatus", HINT)
    root = document.parse({"vcpus": {"vcpu": NOTHING}, "numad": NOTHING, "domain": wanted(sections, data)})
    domain, vcpus = root.first("domain"), root.first("vcpus")
    if domain is None:
        raise DomainError(source, "<domstatus> holds no <domain>", HINT)
    threads = [vcpu for vcpu in vcpus.all("vcpu") if "pid" in vcpu.attributes] if vcpus else []
    numad, guest = root.first("numad"), interpret(document, domain, sections)
    if guest.automatic and numad and "cpuset" in numad.attributes:
        guest = guest.replace(numad=cpus(document, numad, "cpuset"))
    return Status(
        number_in(root.attributes.get("pid", "")) or 0,
        root.attributes.get("state", ""),
        {number(document, vcpu, "id"): number(document, vcpu, "pid", HIGHEST_TID) for vcpu in threads},
        guest,
        root.attributes.get("reason", ""),
    )
