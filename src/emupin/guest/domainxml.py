"""Domain XML as libvirt writes and accepts it, read into a Domain.

The one home of the XML vocabulary, with `nova` and `memory`. Reading is strict and never guesses; it works on the bytes
as they are, so that `splice` can change a pin and nothing else. Source of every rule: libvirt's domain_conf.c and its
RELAX NG schema.
"""

from __future__ import annotations

from emupin.guest import memory, nova
from emupin.guest.domain import AHEAD_OF_CPUTUNE, Domain, Layout
from emupin.guest.xmltree import LAST, NOTHING, TEXT, Document
from emupin.guest.xmlvalues import count, cpus, number, uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Cpus
    from emupin.guest.xmltree import Element, Wanted


class Everything(dict):  # type: ignore[type-arg]
    """Every element is wanted, whatever its name, and nothing inside."""

    def get(self, _name: str, _default: object = None) -> Wanted:
        return NOTHING


ALWAYS: Wanted = {
    **dict.fromkeys(AHEAD_OF_CPUTUNE, NOTHING),  # Where they are is all that counts, but for these.
    "name": TEXT,
    "uuid": TEXT,
    "vcpu": TEXT,
    "vcpus": {"vcpu": NOTHING},
    "iothreads": TEXT,
    "iothreadids": {"iothread": NOTHING},
    "cputune": Everything(),
    "resource": {"partition": TEXT},
    "os": {"type": TEXT},
    "devices": LAST,
    **memory.WANTED,
}
"""Inside of `<domain>`."""

IN_SECTIONS: Wanted = {"metadata": nova.WANTED, "devices": {"interface": NOTHING}}

LONG_SECTIONS = frozenset(IN_SECTIONS)
"""Children of `<domain>` that hold most of a document, and facts that not every policy asks for."""

TAKES_ONE = "libvirt takes one: remove the other"


def wanted(sections: frozenset[str], data: bytes) -> Wanted:
    """The elements to read inside of the `<domain>` in `data` where the policy asks for `sections` of LONG_SECTIONS."""
    found = {**ALWAYS, **{name: IN_SECTIONS[name] for name in sections}}
    if any(word in data for word in memory.DEVICE):
        found["devices"] = {**(IN_SECTIONS["devices"] if "devices" in sections else NOTHING), **memory.DEVICES}
    return found


def read(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Domain:
    """The facts of the domain XML `data`; `source` names it in errors.

    Of LONG_SECTIONS only `sections` are looked into; that they are well-formed is seen in any case. Raises DomainError
    where the document is larger than 16 MiB, UTF-16, not well-formed, has a DOCTYPE, is not a `<domain>`, or says
    something about CPUs that libvirt would reject.
    """
    document = Document(data, source, "domain", "give a domain XML")
    return interpret(document, document.parse(wanted(sections, data)), sections)


def interpret(document: Document, root: Element, sections: frozenset[str]) -> Domain:
    """What the `<domain>` element `root` says. Raises DomainError."""
    vcpu, tune = root.first("vcpu"), _only(document, root.all("cputune"), "emupin rewrites one: merge them")
    pin = _only(document, tune.all("emulatorpin"), TAKES_ONE) if tune else None
    vcpus, says = count(document, vcpu, 1), nova.read(root)
    return Domain(
        kind=root.attributes.get("type", ""),
        id=root.attributes.get("id"),
        name=_text(root.first("name")) or "",
        uuid=uuid(document, root.first("uuid")),
        vcpus=vcpus,
        offline=_offline(document, root, vcpus),
        cpuset=_cpuset(document, vcpu),
        automatic=_is_automatic(vcpu),
        vcpupins=_pins(document, tune, "vcpupin", "vcpu", "vCPU"),
        emulatorpin=cpus(document, pin, "cpuset") if pin else None,
        iothreads=_iothreads(document, root),
        iothreadpins=_pins(document, tune, "iothreadpin", "iothread", "iothread"),
        realtime=_realtime(document, tune),
        interfaces=_interfaces(root) if "devices" in sections else None,
        flavor=says.flavor,
        project=says.project,
        layout=Layout(root),
        extra_specs=says.extra_specs,
        os_type=_text(root.first("os", "type")),
        partition=_text(root.first("resource", "partition")),
        memory=memory.read(document, root),
    )


def _text(element: Element | None) -> str | None:
    return None if element is None else element.text


def _only(document: Document, elements: list[Element], hint: str) -> Element | None:
    """The one element of `elements`, if there is one. Raises DomainError where there are several."""
    if len(elements) > 1:
        document.refuse(elements[1].start, f"two <{elements[1].name}>", hint)
    return elements[0] if elements else None


def _is_automatic(vcpu: Element | None) -> bool:
    return vcpu is not None and vcpu.attributes.get("placement") == "auto"


def _cpuset(document: Document, vcpu: Element | None) -> Cpus | None:
    """libvirt does not look at the `cpuset` of a vCPU that numad places."""
    if vcpu is None or "cpuset" not in vcpu.attributes or _is_automatic(vcpu):
        return None
    return cpus(document, vcpu, "cpuset")


def _offline(document: Document, root: Element, vcpus: int) -> frozenset[int]:
    """Of `<vcpus>` whatever it does not enable, even what it does not list; else those from `current` up."""
    listed = root.all("vcpus", "vcpu")
    if listed:
        states = {number(document, each, "id"): each.attributes.get("enabled") for each in listed}
        return frozenset([each for each in range(vcpus) if states.get(each) != "yes"])
    vcpu = root.first("vcpu")
    if vcpu is None or "current" not in vcpu.attributes:
        return frozenset()
    return frozenset(range(number(document, vcpu, "current", vcpus), vcpus))


def _iothreads(document: Document, root: Element) -> tuple[int, ...]:
    """The ids that `<iothreadids>` gives, then the lowest free ones up to the count of `<iothreads>`.

    Raises DomainError.
    """
    ids: dict[int, None] = {}
    for element in root.all("iothreadids", "iothread"):
        key = number(document, element, "id")
        if key == 0 or key in ids:
            what = "is not an id" if key == 0 else "stands twice"
            document.refuse(element.start, f"<iothread id='{key}'> {what}", "give each a number of its own, from 1")
        ids[key] = None
    wanted = count(document, root.first("iothreads"), 0)
    free = [each for each in range(1, wanted + 1) if each not in ids]
    return (*ids, *free[: max(wanted - len(ids), 0)])


def _pins(document: Document, tune: Element | None, tag: str, index: str, what: str) -> dict[int, Cpus]:
    """The pins of the elements `tag` in `<cputune>`, by their attribute `index`. Raises DomainError."""
    pins: dict[int, Cpus] = {}
    for element in tune.all(tag) if tune else ():
        key = number(document, element, index)
        if key in pins:
            document.refuse(element.start, f"two <{tag}> for {what} {key}", TAKES_ONE)
        pins[key] = cpus(document, element, "cpuset")
    return pins


def _realtime(document: Document, tune: Element | None) -> frozenset[int]:
    """The vCPUs that some `<vcpusched>` makes realtime. Raises DomainError."""
    scheds = tune.all("vcpusched") if tune else []
    realtime = [each for each in scheds if each.attributes.get("scheduler") in ("fifo", "rr")]
    return frozenset().union(*{cpus(document, each, "vcpus") for each in realtime})


def _interfaces(root: Element) -> frozenset[str]:
    return frozenset([each.attributes.get("type", "") for each in root.all("devices", "interface")])
