"""Domain XML as libvirt writes and accepts it: the facts that a placement needs, and where the bytes of the pins are.

The one home of the XML vocabulary. Reading is strict and never guesses; it works on the bytes as they are, so that
`splice` can change a pin and nothing else. Source of every rule: libvirt's domain_conf.c and its RELAX NG schema.
"""

from __future__ import annotations

import pyexpat

from emupin import cpuset
from emupin.errors import DomainError
from emupin.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn

    Attributes = dict[str, str]
    Cpus = frozenset[int]

LARGEST = 16 * 1024 * 1024
"""Bytes; a larger document is refused."""

HIGHEST_INDEX = 65535
"""Of a vCPU or an iothread: far above what any QEMU machine type takes, far below what would exhaust memory."""

HIGHEST_TID = 4194304
"""Of any thread (the kernel's PID_MAX_LIMIT)."""

NOVA = "http://openstack.org/xmlns/libvirt/nova/1."
"""Nova's metadata namespaces: 1.0 up to Victoria, 1.1 since Wallaby."""

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

OF_INTEREST = (b"<name", b"<uuid", b"<vcpu", b"<iothread", b"<cputune")
"""How the start tags of all elements begin that are looked for outside LONG_SECTIONS."""

LONG_SECTIONS = frozenset(("metadata", "devices"))
"""Children of `<domain>` that hold most of a document, and facts that not every policy asks for."""

TEXTS = frozenset(("name", "uuid", "vcpu", "iothreads"))
"""Children of `<domain>` whose text counts; of several the first, as libvirt's XPath expressions read them."""


class Element(Frozen):
    """Where an element is: the offset of its start tag, and expat's byte index at its end (see `element_end`)."""

    name: str
    start: int
    index: int


class Layout(Frozen):
    """The elements that a rewrite may touch or must stand beside."""

    domain_start: int
    before_cputune: Element | None
    """The child of `<domain>` behind which libvirt would print a `<cputune>`; None where there is neither."""
    cputune: Element | None
    first_tune: Element | None
    """The first child of `<cputune>`."""
    before_emulatorpin: Element | None
    """The child of `<cputune>` behind which libvirt would print an `<emulatorpin>`; None where there is none."""
    emulatorpin: Element | None
    iothreadpins: Mapping[int, Element]


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

    def vcpu_cpus(self, vcpu: int) -> Cpus | None:
        """The CPUs that `vcpu` may run on; None where nothing restricts it, or numad does."""
        pin = self.vcpupins.get(vcpu)
        return self.cpuset if pin is None and not self.automatic else pin


class Status(Frozen):
    """libvirt's status XML of a running guest, `/run/libvirt/qemu/NAME.xml`."""

    pid: int
    """0 while the guest is being started and has no process yet."""
    state: str
    vcpu_tids: Mapping[int, int]
    """Thread ids by vCPU index."""
    domain: Domain


def read(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Domain:
    """The facts of the domain XML `data`; `source` names it in errors.

    Of LONG_SECTIONS only `sections` are looked into; that they are well-formed is seen in any case. Raises DomainError
    where the document is larger than 16 MiB, UTF-16, not well-formed, has a DOCTYPE, is not a `<domain>`, or says
    something about CPUs that libvirt would reject.
    """
    reader = _DomainReader(data, source, sections)
    reader.parse()
    return reader.domain()


def read_status(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Status:
    """The facts of the status XML `data`. Raises DomainError as `read` does."""
    reader = _StatusReader(data, source, sections)
    reader.parse()
    return reader.status()


class _DomainReader:
    """One pass of expat over a document whose root is `<domain>`.

    Handlers are exchanged as the pass goes in and out of the children of `<domain>`, so that an element nobody asks
    for costs as little as Python allows; in a section that is not looked into there are none at all.
    """

    def __init__(self, data: bytes, source: str, sections: frozenset[str]) -> None:
        self.data, self.source, self.sections = data, source, sections
        self.silent = _ends_of_unique(data, LONG_SECTIONS - sections)
        self.in_silence = False
        self.parser = pyexpat.ParserCreate(None, " ")
        self.root: Attributes = {}
        self.root_start = 0
        self.child = ""
        self.child_start = 0
        self.inside: list[str] = []
        """The elements that are open below the current child of `<domain>`."""
        self.start_other, self.end_inside = self.quick_handlers()
        self.text: list[str] = []
        self.texts: dict[str, str] = {}
        self.vcpu: Attributes = {}
        self.cpuset: Cpus | None = None
        self.enabled: set[int] | None = None
        self.vcpupins: dict[int, Cpus] = {}
        self.emulatorpin: Cpus | None = None
        self.iothread_ids: list[int] = []
        self.iothreadpins: dict[int, Cpus] = {}
        self.realtime: frozenset[int] = frozenset()
        self.interfaces: set[str] = set()
        self.nova: dict[str, str] = {}
        self.tune_start = 0
        self.before_cputune: tuple[str, int, int] | None = None
        self.cputune: Element | None = None
        self.first_tune: Element | None = None
        self.before_emulatorpin: tuple[str, int, int] | None = None
        self.emulatorpin_at: Element | None = None
        self.iothreadpins_at: dict[int, Element] = {}

    def parse(self) -> None:
        if len(self.data) > LARGEST:
            self.refuse("larger than 16 MiB", "a domain XML is some kilobytes: is this the right file?")
        if self.data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in self.data[:4]:
            self.refuse(
                "UTF-16 or UTF-32",
                "convert it with `iconv -t UTF-8` and mend its XML declaration",
            )
        self.parser.StartElementHandler = self.start_root
        self.parser.StartDoctypeDeclHandler = self.start_doctype
        self.parser.XmlDeclHandler = self.declaration
        try:
            self.feed()
        except pyexpat.ExpatError as error:
            raise DomainError(
                f"{self.source}:{error.lineno}:{error.offset + 1}",
                f"not well-formed XML ({pyexpat.ErrorString(error.code)})",
                "`xmllint --noout` shows the place",
            ) from None

    def feed(self) -> None:
        """Give expat the document, with a pause before each end tag of a section that is passed over in silence."""
        rest, position = memoryview(self.data), 0
        for end in sorted(self.silent.values()):
            self.parser.Parse(rest[position:end], False)
            if self.in_silence:
                self.in_silence, self.parser.EndElementHandler = False, self.end_inside
            position = end
        self.parser.Parse(rest[position:], True)

    def refuse(self, what: str, hint: str) -> NoReturn:
        raise DomainError(f"{self.source}:{self.parser.CurrentLineNumber}", what, hint)

    # -- the document -------------------------------------------------------------------------------------------------

    def start_doctype(self, *_: object) -> None:
        self.refuse("has a DOCTYPE", "a domain XML never has one: remove it")

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is None:
            return
        try:
            decoded = bytes(range(0x100)).decode(encoding, "replace")
        except (LookupError, UnicodeError):
            decoded = ""
        # Pins are ASCII: it must be a superset. Multi-byte encodings other than UTF-8 are beyond pyexpat.
        if len(decoded) != 0x100 or not decoded.startswith(bytes(range(0x80)).decode()):
            self.refuse(f"encoding {encoding!r} is not supported", "convert it to UTF-8")

    def start_root(self, name: str, attributes: Attributes) -> None:
        if name != "domain":
            namespace, _, local = name.rpartition(" ")
            root = f"<{local}> of the namespace {namespace!r}" if namespace else f"<{local}>"
            self.refuse(f"the root element is {root}, not libvirt's <domain>", "give a domain XML")
        self.start_domain(attributes)

    def start_domain(self, attributes: Attributes) -> None:
        self.root = attributes
        self.root_start = self.parser.CurrentByteIndex
        self.parser.StartElementHandler = self.start_child
        self.parser.EndElementHandler = self.end_domain

    def end_domain(self, _name: str) -> None:
        """Only comments may follow the root."""

    # -- children of <domain> -----------------------------------------------------------------------------------------

    def start_child(self, name: str, attributes: Attributes) -> None:
        parser = self.parser
        self.child, self.child_start = name, parser.CurrentByteIndex
        if name in TEXTS and name not in self.texts:
            self.text = []
            parser.CharacterDataHandler = self.text.append
            if name == "vcpu":
                self.read_vcpu(attributes)
        if name in self.silent:
            self.in_silence, parser.StartElementHandler, parser.EndElementHandler = True, None, None
            return
        parser.StartElementHandler = getattr(self, SECTIONS.get(name, "start_other"))
        parser.EndElementHandler = self.end_tune if name == "cputune" else self.end_inside

    def end_child(self) -> None:
        name, parser = self.child, self.parser
        parser.StartElementHandler = self.start_child
        parser.EndElementHandler = self.end_domain
        if name in TEXTS and name not in self.texts:
            parser.CharacterDataHandler = None
            self.texts[name] = "".join(self.text)
        if name == "cputune":
            if self.cputune:
                self.refuse("two <cputune>", "libvirt takes one: merge them")
            self.cputune = Element(name, self.child_start, parser.CurrentByteIndex)
            if self.nothing_ahead():
                parser.StartElementHandler = parser.EndElementHandler = None
        elif name in AHEAD_OF_CPUTUNE:
            before = self.before_cputune
            if not before or AHEAD_OF_CPUTUNE[name] >= AHEAD_OF_CPUTUNE[before[0]]:
                self.before_cputune = name, self.child_start, parser.CurrentByteIndex

    def nothing_ahead(self) -> bool:
        """Whether no element that is looked for can follow, nowhere in the rest of the document."""
        position = self.parser.CurrentByteIndex
        tags = (*OF_INTEREST, *[b"<" + name.encode() for name in self.sections])
        return all(self.data.find(tag, position) < 0 for tag in tags)

    def quick_handlers(self) -> tuple[Callable[[str, Attributes], None], Callable[[str], None]]:
        """What is called for most elements: to go past one that nobody asks for, and to leave any.

        Closures: a call of a bound method takes half as long again, on every element of a document.
        """
        inside, push, pop, end_child = self.inside, self.inside.append, self.inside.pop, self.end_child

        def start_other(name: str, _attributes: Attributes) -> None:
            push(name)

        def end_inside(_name: str) -> None:
            if inside:
                pop()
            else:
                end_child()

        return start_other, end_inside

    def read_vcpu(self, attributes: Attributes) -> None:
        self.vcpu = attributes
        if "cpuset" in attributes and attributes.get("placement") != "auto":
            self.cpuset = self.cpus("vcpu", "cpuset", attributes)

    def start_in_vcpus(self, name: str, attributes: Attributes) -> None:
        if name == "vcpu" and not self.inside:
            self.enabled = self.enabled or set()
            if attributes.get("enabled") == "yes":
                self.enabled.add(self.number(name, "id", attributes))
        self.inside.append(name)

    def start_in_iothreadids(self, name: str, attributes: Attributes) -> None:
        if name == "iothread" and not self.inside:
            self.iothread_ids.append(self.number(name, "id", attributes))
        self.inside.append(name)

    def start_in_devices(self, name: str, attributes: Attributes) -> None:
        if name == "interface" and not self.inside:
            self.interfaces.add(attributes.get("type", ""))
        self.inside.append(name)

    def start_in_metadata(self, name: str, attributes: Attributes) -> None:
        """Nova's: `<nova:flavor name>` in `<nova:instance>`, `<nova:project uuid>` in `<nova:owner>` in that."""
        if name.startswith(NOVA):
            local, parents = name.rpartition(" ")[2], len(self.inside)
            if local == "flavor" and parents == 1:
                self.nova.setdefault("flavor", attributes.get("name", ""))
            elif local == "project" and parents == 2 and self.inside[1].endswith(" owner"):
                self.nova.setdefault("project", attributes.get("uuid", ""))
        self.inside.append(name)

    # -- children of <cputune> ----------------------------------------------------------------------------------------

    def start_tune(self, name: str, attributes: Attributes) -> None:
        if not self.inside:
            self.tune_start = self.parser.CurrentByteIndex
            read = TUNES.get(name)
            if read:
                read(self, attributes)
        self.inside.append(name)

    def end_tune(self, name: str) -> None:
        if not self.inside:
            self.end_child()
            return
        self.inside.pop()
        if self.inside:
            return
        place = name, self.tune_start, self.parser.CurrentByteIndex
        if not self.first_tune:
            self.first_tune = Element(*place)
        if name in AHEAD_OF_EMULATORPIN:
            self.before_emulatorpin = place
        elif name == "emulatorpin":
            self.emulatorpin_at = Element(*place)
        elif name == "iothreadpin":
            self.iothreadpins_at[next(reversed(self.iothreadpins))] = Element(*place)

    def read_vcpupin(self, attributes: Attributes) -> None:
        vcpu = self.number("vcpupin", "vcpu", attributes)
        if vcpu in self.vcpupins:
            self.refuse(f"two <vcpupin> for vCPU {vcpu}", "libvirt takes one: remove the other")
        self.vcpupins[vcpu] = self.cpus("vcpupin", "cpuset", attributes)

    def read_emulatorpin(self, attributes: Attributes) -> None:
        if self.emulatorpin:
            self.refuse("two <emulatorpin>", "libvirt takes one: remove the other")
        self.emulatorpin = self.cpus("emulatorpin", "cpuset", attributes)

    def read_iothreadpin(self, attributes: Attributes) -> None:
        iothread = self.number("iothreadpin", "iothread", attributes)
        if iothread in self.iothreadpins:
            self.refuse(f"two <iothreadpin> for iothread {iothread}", "libvirt takes one: remove the other")
        self.iothreadpins[iothread] = self.cpus("iothreadpin", "cpuset", attributes)

    def read_vcpusched(self, attributes: Attributes) -> None:
        if attributes.get("scheduler") in ("fifo", "rr"):
            self.realtime |= self.cpus("vcpusched", "vcpus", attributes)

    # -- values -------------------------------------------------------------------------------------------------------

    def number(self, element: str, name: str, attributes: Attributes, highest: int = HIGHEST_INDEX) -> int:
        text = attributes.get(name)
        number = None if text is None else _number(text)
        if number is None or number > highest:
            self.refuse_attribute(element, name, text, f" is not a number up to {highest}", "give a number such as 0")
        return number

    def cpus(self, element: str, name: str, attributes: Attributes) -> Cpus:
        text = attributes.get(name)
        try:
            return cpuset.parse(text or "")
        except cpuset.CpuListError as error:
            self.refuse_attribute(element, name, text, f": {error}", "give a list such as 0-3,8")

    def refuse_attribute(self, element: str, name: str, text: str | None, what: str, hint: str) -> NoReturn:
        if text is None:
            self.refuse(f"<{element}> has no attribute {name!r}", "libvirt requires it")
        self.refuse(f"<{element} {name}={text!r}>{what}", hint)

    def count(self, name: str, default: int) -> int:
        text = self.texts.get(name)
        if text is None:
            return default
        number = _number(text.strip())
        if number is None or number > HIGHEST_INDEX:
            raise DomainError(self.source, f"<{name}>{text[:40]}</{name}> is not a count", "give a number such as 4")
        return number

    # -- the result ---------------------------------------------------------------------------------------------------

    def domain(self) -> Domain:
        vcpus = self.count("vcpu", 1)
        return Domain(
            self.root.get("type", ""),
            self.root.get("id"),
            self.texts.get("name", ""),
            self.uuid(),
            vcpus,
            self.offline(vcpus),
            self.cpuset,
            self.vcpu.get("placement") == "auto",
            self.vcpupins,
            self.emulatorpin,
            self.iothreads(),
            self.iothreadpins,
            self.realtime,
            frozenset(self.interfaces) if "devices" in self.sections else None,
            self.nova.get("flavor"),
            self.nova.get("project"),
            Layout(
                self.root_start,
                self.before_cputune and Element(*self.before_cputune),
                self.cputune,
                self.first_tune,
                self.before_emulatorpin and Element(*self.before_emulatorpin),
                self.emulatorpin_at,
                self.iothreadpins_at,
            ),
        )

    def uuid(self) -> str | None:
        """The UUID in its usual form; libvirt reads it with or without hyphens, in either case (virUUIDParse)."""
        text = self.texts.get("uuid")
        if text is None:
            return None
        digits = text.strip().replace("-", "").lower()
        if len(digits) != 32 or digits.strip("0123456789abcdef"):
            raise DomainError(self.source, f"<uuid>{text[:60]}</uuid> is not a UUID", "`uuidgen` makes one")
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def offline(self, vcpus: int) -> frozenset[int]:
        """Of `<vcpus>` whatever it does not enable, even what it does not list; else those from `current` up."""
        if self.enabled is not None:
            return frozenset(range(vcpus)) - self.enabled
        current = _number(self.vcpu.get("current", ""))
        return frozenset() if current is None else frozenset(range(current, vcpus))

    def iothreads(self) -> tuple[int, ...]:
        """The ids that `<iothreadids>` gives, then the lowest free ones up to the count of `<iothreads>`."""
        ids, candidate = list(self.iothread_ids), 1
        for _ in range(self.count("iothreads", 0) - len(ids)):
            while candidate in ids:
                candidate += 1
            ids.append(candidate)
        return tuple(ids)


class _StatusReader(_DomainReader):
    """The same, below libvirt's wrapping of a live `<domain>` in `<domstatus>`."""

    def __init__(self, data: bytes, source: str, sections: frozenset[str]) -> None:
        super().__init__(data, source, sections)
        self.wrapping: Attributes = {}
        self.vcpu_tids: dict[int, int] = {}

    def start_root(self, name: str, attributes: Attributes) -> None:
        if name != "domstatus":
            self.refuse(f"the root element is <{name}>, not <domstatus>", "is this one of libvirt's status files?")
        self.wrapping = attributes
        self.end_domain(name)

    def end_domain(self, _name: str) -> None:
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
        pid = _number(self.wrapping.get("pid", "")) or 0
        return Status(pid, self.wrapping.get("state", ""), self.vcpu_tids, self.domain())


SECTIONS = {
    "metadata": "start_in_metadata",
    "vcpus": "start_in_vcpus",
    "iothreadids": "start_in_iothreadids",
    "cputune": "start_tune",
    "devices": "start_in_devices",
}
"""The children of `<domain>` with something of interest inside, and who reads it."""

TUNES: dict[str, Callable[[_DomainReader, Attributes], None]] = {
    "vcpupin": _DomainReader.read_vcpupin,
    "emulatorpin": _DomainReader.read_emulatorpin,
    "iothreadpin": _DomainReader.read_iothreadpin,
    "vcpusched": _DomainReader.read_vcpusched,
}


def _number(text: str) -> int | None:
    """`text` as a whole number of ASCII digits; None where it is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _ends_of_unique(data: bytes, names: Iterable[str]) -> dict[str, int]:
    """Where the end tag of each of `names` is, if its start and its end occur once each in the bytes of `data`.

    Only such an element can be passed over in silence: it has no other of its name inside or beside it, so once its
    start was seen, that end is its own, and everything between is inside.
    """
    found = {}
    for name in names:
        opening, closing = b"<" + name.encode(), b"</" + name.encode()
        if data.count(opening) == 1 and data.count(closing) == 1:
            found[name] = data.index(closing)
    return found


def tag_end(data: bytes, start: int) -> int:
    """The offset just behind the `>` of the tag that starts at `start`; a `>` inside quotes does not count."""
    position = start
    while True:
        close = data.index(b">", position)
        double, single = data.find(b'"', position, close), data.find(b"'", position, close)
        if double < 0 and single < 0:
            return close + 1
        opening = single if double < 0 or 0 <= single < double else double
        position = data.index(data[opening : opening + 1], opening + 1) + 1


def element_end(data: bytes, element: Element) -> int:
    """The offset just behind `element`.

    At the end of `<a/>` expat's index is behind the element already, at the end of `<a></a>` in front of `</a>`.
    """
    end = tag_end(data, element.start)
    return end if data[end - 2 : end] == b"/>" else data.index(b">", element.index) + 1
