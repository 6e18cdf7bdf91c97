"""Domain XML as libvirt writes and accepts it, read into a Domain.

The one home of the XML vocabulary. Reading is strict and never guesses; it works on the bytes as they are, so that
`splice` can change a pin and nothing else. Source of every rule: libvirt's domain_conf.c and its RELAX NG schema.
"""

from __future__ import annotations

import pyexpat

from emupin.base import cpuset
from emupin.base.errors import DomainError
from emupin.guest.domain import HIGHEST_INDEX, Domain, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

    from emupin.guest.domain import Cpus, Place

    Attributes = dict[str, str]
    Look = Callable[[str, Attributes, int], None]

LARGEST = 16 * 1024 * 1024
"""Bytes; a larger document is refused."""

NOVA = "http://openstack.org/xmlns/libvirt/nova/1."
"""Nova's metadata namespaces: 1.0 up to Victoria, 1.1 since Wallaby."""

OF_INTEREST = (b"<vcpu", b"<iothread", b"<cputune")
"""How the start tags of all elements begin that are looked for outside LONG_SECTIONS, but for `<name>` and `<uuid>`."""

LONG_SECTIONS = frozenset(("metadata", "devices"))
"""Children of `<domain>` that hold most of a document, and facts that not every policy asks for."""

TEXTS = frozenset(("name", "uuid", "vcpu", "iothreads"))
"""Children of `<domain>` whose text counts; of several the first, as libvirt's XPath expressions read them."""


def read(data: bytes, source: str, sections: frozenset[str] = LONG_SECTIONS) -> Domain:
    """The facts of the domain XML `data`; `source` names it in errors.

    Of LONG_SECTIONS only `sections` are looked into; that they are well-formed is seen in any case. Raises DomainError
    where the document is larger than 16 MiB, UTF-16, not well-formed, has a DOCTYPE, is not a `<domain>`, or says
    something about CPUs that libvirt would reject.
    """
    reader = DomainReader(data, source, sections)
    try:
        reader.parse()
        return reader.domain()
    finally:
        reader.close()


class DomainReader:
    """One pass of expat over a document whose root is `<domain>`.

    Two handlers see every element, and show those inside a section of interest to what reads it. In a section that is
    not looked into, and behind the last element that is looked for, there are none at all.
    """

    root_start = 0
    cpuset: Cpus | None = None
    enabled: set[int] | None = None
    emulatorpin: Cpus | None = None
    realtime: Cpus = frozenset()
    cputune: Place | None = None
    parent = ""
    """The name of the last element at the third level of `<metadata>`."""

    def __init__(self, data: bytes, source: str, sections: frozenset[str]) -> None:
        self.data, self.source, self.sections = data, source, sections
        self.parser = pyexpat.ParserCreate(None, " ")
        self.root: Attributes = {}
        self.vcpu: Attributes = {}
        self.texts: dict[str, str] = {}
        self.vcpupins: dict[int, Cpus] = {}
        self.iothread_ids: list[int] = []
        self.iothreadpins: dict[int, Cpus] = {}
        self.interfaces: set[str] = set()
        self.nova: dict[str, str] = {}
        self.children: list[Place] = []
        self.tunes: list[Place] = []
        """The children of `<cputune>`."""
        self.text: list[str] = []
        self.silent = _bounds(data, LONG_SECTIONS - sections)
        if "devices" in self.silent and 0 <= data.find(b"</cputune") < self.silent["devices"][0]:
            del self.silent["devices"]  # Mostly there is `nothing_ahead` then, and a pause has a price too.
        self.in_silence = ""
        """The section that is being passed over."""
        self.start, self.end = self.handlers()

    def close(self) -> None:
        """Let go of the parser: its handlers hold it and this reader, for as long as no garbage collector comes."""
        parser = self.parser
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
        parser.StartDoctypeDeclHandler = parser.XmlDeclHandler = None
        self.__dict__.clear()

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
        """Give expat the document, with a pause before the end tag of each section that may be passed over."""
        rest, position = memoryview(self.data), 0
        for name, (_, end) in sorted(self.silent.items(), key=lambda item: item[1][1]):
            self.parser.Parse(rest[position:end], False)
            position = end
            if self.in_silence == name:
                self.end_silence(name)
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
        self.parser.StartElementHandler, self.parser.EndElementHandler = self.start, self.end

    def end_domain(self) -> None:
        """Only comments may follow the root."""

    # -- children of <domain> -----------------------------------------------------------------------------------------

    def handlers(self) -> tuple[Callable[[str, Attributes], None], Callable[[str], None]]:
        """What is called for the start and the end of an element, at any depth below `<domain>`.

        Closures: a call of a bound method takes half as long again, on every element of a document.
        """
        parser, children = self.parser, self.children
        depth, child_start = 0, 0
        look: Look | None = None

        def start(name: str, attributes: Attributes) -> None:
            nonlocal depth, child_start, look
            depth += 1
            if depth == 1:
                child_start = parser.CurrentByteIndex
                begin = SECTIONS.get(name)
                if begin:
                    look = begin(self, name, attributes)
            elif look:
                look(name, attributes, depth)

        def end(name: str) -> None:
            nonlocal depth, look
            depth -= 1
            if depth > 0:
                return
            if depth < 0:
                depth = 0
                self.end_domain()
                return
            look = None
            children.append((name, child_start, parser.CurrentByteIndex))
            if name in TEXTS:
                self.end_text(name)
            elif name == "cputune":
                self.end_cputune()

        return start, end

    def start_text(self, name: str, attributes: Attributes) -> None:
        if name not in self.texts:
            self.text = []
            self.parser.CharacterDataHandler = self.text.append
            if name == "vcpu":
                self.read_vcpu(attributes)

    def end_text(self, name: str) -> None:
        self.parser.CharacterDataHandler = None
        self.texts.setdefault(name, "".join(self.text))

    def nothing_ahead(self) -> bool:
        """Whether no element that is looked for can follow, nowhere in the rest of the document."""
        if "name" not in self.texts or "uuid" not in self.texts:
            return False
        position = self.parser.CurrentByteIndex
        tags = (*OF_INTEREST, *[b"<" + name.encode() for name in self.sections])
        return not [tag for tag in tags if self.data.find(tag, position) >= 0]

    def start_section(self, name: str, _attributes: Attributes) -> Look:
        look: Look = getattr(self, f"look_into_{name}")
        return look

    def start_long(self, name: str, attributes: Attributes) -> Look | None:
        if self.parser.CurrentByteIndex != self.silent.get(name, (-1, -1))[0]:
            return self.start_section(name, attributes)
        self.in_silence = name
        self.parser.StartElementHandler = self.parser.EndElementHandler = None
        return None

    def end_silence(self, section: str) -> None:
        """Look for the end of `section`, from where it may be; only other elements of its name count."""
        parser, inner = self.parser, []

        def start(name: str, _attributes: Attributes) -> None:
            if name == section:
                inner.append(name)

        def end(name: str) -> None:
            if name == section and inner:
                inner.pop()
            elif name == section:
                parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
                self.end(name)

        self.in_silence = ""
        parser.StartElementHandler, parser.EndElementHandler = start, end

    def read_vcpu(self, attributes: Attributes) -> None:
        self.vcpu = attributes
        if "cpuset" in attributes and attributes.get("placement") != "auto":
            self.cpuset = self.cpus("vcpu", "cpuset", attributes)

    def look_into_vcpus(self, name: str, attributes: Attributes, depth: int) -> None:
        if name == "vcpu" and depth == 2:
            self.enabled = self.enabled or set()
            if attributes.get("enabled") == "yes":
                self.enabled.add(self.number(name, "id", attributes))

    def look_into_iothreadids(self, name: str, attributes: Attributes, depth: int) -> None:
        if name == "iothread" and depth == 2:
            self.iothread_ids.append(self.number(name, "id", attributes))

    def look_into_devices(self, name: str, attributes: Attributes, depth: int) -> None:
        if name == "interface" and depth == 2:
            self.interfaces.add(attributes.get("type", ""))

    def look_into_metadata(self, name: str, attributes: Attributes, depth: int) -> None:
        """Nova's: `<nova:flavor name>` in `<nova:instance>`, `<nova:project uuid>` in `<nova:owner>` in that."""
        if depth == 3:
            self.parent = name
        if name.startswith(NOVA):
            local = name.rpartition(" ")[2]
            if local == "flavor" and depth == 3:
                self.nova.setdefault("flavor", attributes.get("name", ""))
            elif local == "project" and depth == 4 and self.parent.endswith(" owner"):
                self.nova.setdefault("project", attributes.get("uuid", ""))

    # -- children of <cputune> ----------------------------------------------------------------------------------------

    def start_cputune(self, _name: str, _attributes: Attributes) -> None:
        if self.cputune:
            self.refuse("two <cputune>", "libvirt takes one: merge them")
        parser, tunes = self.parser, self.tunes
        tune_start, depth = 0, 0

        def start(name: str, attributes: Attributes) -> None:
            nonlocal tune_start, depth
            if not depth:
                tune_start = parser.CurrentByteIndex
                read = TUNES.get(name)
                if read:
                    read(self, attributes)
            depth += 1

        def end(name: str) -> None:
            nonlocal depth
            if not depth:
                parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
                self.end(name)
                return
            depth -= 1
            if not depth:
                tunes.append((name, tune_start, parser.CurrentByteIndex))

        parser.StartElementHandler, parser.EndElementHandler = start, end

    def end_cputune(self) -> None:
        self.cputune = self.children[-1]
        if self.nothing_ahead():
            self.parser.StartElementHandler = self.parser.EndElementHandler = None

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
        number = number_in(attributes.get(name, ""))
        if number is None or number > highest:
            what = f" is not a number up to {highest}"
            self.refuse_attribute(element, name, attributes, what, "give a number such as 0")
        return number

    def cpus(self, element: str, name: str, attributes: Attributes) -> Cpus:
        try:
            return cpuset.parse(attributes.get(name, ""))
        except cpuset.CpuListError as error:
            self.refuse_attribute(element, name, attributes, f": {error}", "give a list such as 0-3,8")

    def refuse_attribute(self, element: str, name: str, attributes: Attributes, what: str, hint: str) -> NoReturn:
        if name not in attributes:
            self.refuse(f"<{element}> has no attribute {name!r}", "libvirt requires it")
        self.refuse(f"<{element} {name}={attributes[name]!r}>{what}", hint)

    def count(self, name: str, default: int) -> int:
        text = self.texts.get(name)
        if text is None:
            return default
        number = number_in(text.strip())
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
            Layout(self.root_start, tuple(self.children), self.cputune, tuple(self.tunes)),
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
        current = number_in(self.vcpu.get("current", ""))
        return frozenset() if current is None else frozenset(range(current, vcpus))

    def iothreads(self) -> tuple[int, ...]:
        """The ids that `<iothreadids>` gives, then the lowest free ones up to the count of `<iothreads>`."""
        ids, candidate = list(self.iothread_ids), 1
        for _ in range(self.count("iothreads", 0) - len(ids)):
            while candidate in ids:
                candidate += 1
            ids.append(candidate)
        return tuple(ids)


SECTIONS: dict[str, Callable[[DomainReader, str, Attributes], Look | None]] = {
    "name": DomainReader.start_text,
    "uuid": DomainReader.start_text,
    "vcpu": DomainReader.start_text,
    "iothreads": DomainReader.start_text,
    "metadata": DomainReader.start_long,
    "devices": DomainReader.start_long,
    "vcpus": DomainReader.start_section,
    "iothreadids": DomainReader.start_section,
    "cputune": DomainReader.start_cputune,
}
"""The children of `<domain>` with something of interest inside, and what starts reading it.

Where that gives a function, it is shown each element inside, with its depth: that of the child itself is 1.
"""

TUNES: dict[str, Callable[[DomainReader, Attributes], None]] = {
    "vcpupin": DomainReader.read_vcpupin,
    "emulatorpin": DomainReader.read_emulatorpin,
    "iothreadpin": DomainReader.read_iothreadpin,
    "vcpusched": DomainReader.read_vcpusched,
}


def number_in(text: str) -> int | None:
    """`text` as a whole number of ASCII digits; None where it is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _bounds(data: bytes, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Of the first element of each of `names`: where its start tag and the first end tag of that name seem to be.

    Only where the start tag is spelled `<metadata>`, which has an end tag, and no other start tag of that name seems to
    be between the two places. So if the parser finds the start where it is said to be, then at the other place, be it
    in a comment, that element and no other of its name is open: neither a start nor an end tag of that name can be in
    between, since each would be spelled as was searched for. (A name in a namespace is another name; encodings that
    are not a superset of ASCII are refused.)
    """
    found = {}
    for name in names:
        opening, closing = b"<" + name.encode(), b"</" + name.encode()
        start = data.find(opening)
        end = data.find(closing, start)
        spelled = data[start : start + len(opening) + 1] == opening + b">"
        if spelled and start < end and data.find(opening, start + 1, end) < 0:
            found[name] = start, end
    return found
