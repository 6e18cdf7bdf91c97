"""Random domain XML, in all the ways in which one and the same document can be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from emupin.base import cpuset

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

UUID = "6d5f1c0a-3b2e-4a19-8c7d-0123456789ab"

DECOYS = (
    "<emulatorpins cpuset='91'/>",
    "<x:emulatorpin xmlns:x='urn:example:x' cpuset='92'/>",
    "<x:cputune xmlns:x='urn:example:x'><emulatorpin cpuset='93'/></x:cputune>",
    "<emulatorpin xmlns='urn:example:x' cpuset='94'/>",
    "<y:a xmlns:y='urn:example:y' b='/>' c=\"<'\"><cputune><emulatorpin cpuset='95'/></cputune></y:a>".replace(
        "<'", ">'"
    ),
)
COMMENTS = (
    "<!---->",
    "<!-- <emulatorpin cpuset='96'/> -->",
    "<!--\n  </cputune>\n-->",
    "<?note <emulatorpin cpuset='97'/> ?>",
)
TEXTS = (
    "",
    "plain",
    "<![CDATA[<cputune><emulatorpin cpuset='98'/></cputune>]]>",
    "a &gt; b &amp; &#x63;",
    "a > 'b'",
    "ü",
)

cpus = st.frozensets(st.integers(0, 70) | st.just(cpuset.HIGHEST), min_size=1, max_size=8)
"""Sets of CPUs that libvirt accepts."""


@dataclass
class Document:
    """A document and what it says."""

    data: bytes
    vcpus: int
    vcpupins: dict[int, frozenset[int]] = field(default_factory=dict)
    iothreadpins: dict[int, frozenset[int]] = field(default_factory=dict)
    emulatorpin: frozenset[int] | None = None


@st.composite
def lists(draw: DrawFn, of: frozenset[int]) -> str:
    """One of the many ways to write a set of CPUs."""
    parts = [str(cpu) for cpu in draw(st.permutations(sorted(of)))]
    extra = draw(st.sampled_from(sorted(of)))
    start = draw(st.sampled_from(("plain", "exclusion", "format", "repeated")))
    if start == "format":
        return cpuset.format(of)
    if start == "exclusion":
        low = draw(st.integers(0, 60))
        parts = [f"{low}-{low + 9}", *(f"^{cpu}" for cpu in range(low, low + 10)), *parts]
    elif start == "repeated":
        parts += [f"{extra}-{extra}", f"{extra:05d}"]
    blank = draw(st.sampled_from(("", "", " ", "  ")))
    return f",{blank}".join(parts) + draw(st.sampled_from(("", "", ",", " ", f"{blank},{blank}")))


@st.composite
def attributes(draw: DrawFn, values: dict[str, str]) -> str:
    text = ""
    for name in draw(st.permutations(list(values))):
        quote = draw(st.sampled_from("'\""))
        equals = draw(st.sampled_from(("=", "=", "=", " = ", "\n=", "=\t")))
        value = values[name]
        if value and draw(st.integers(0, 9)) == 0:
            value = f"&#{ord(value[0])};{value[1:]}"
        text += draw(st.sampled_from((" ", " ", "  ", "\n      ", "\t"))) + f"{name}{equals}{quote}{value}{quote}"
    return text


@st.composite
def tags(draw: DrawFn, name: str, values: dict[str, str], content: str = "") -> str:
    inside = draw(attributes(values)) + draw(st.sampled_from(("", "", " ", "\n  ")))
    if content or draw(st.booleans()):
        return f"<{name}{inside}>{content}</{name}{draw(st.sampled_from(('', '', ' ')))}>"
    return f"<{name}{inside}/>"


@st.composite
def gaps(draw: DrawFn, indentation: str) -> str:
    """What may stand between two elements."""
    kind = draw(st.integers(0, 9))
    comment = draw(st.sampled_from(COMMENTS))
    if kind == 0:
        return ""
    if kind == 1:
        return f" {comment}{indentation}"
    if kind == 2:
        return f"{indentation}{comment}{indentation}"
    return comment if kind == 3 else indentation


@st.composite
def joined(draw: DrawFn, elements: list[str], indentation: str, last: str) -> str:
    return "".join(draw(gaps(indentation)) + element for element in elements) + (draw(gaps(last)) if elements else "")


@st.composite
def pins(draw: DrawFn, name: str, index: str, of: dict[int, frozenset[int]]) -> list[str]:
    return [draw(tags(name, {index: str(key), "cpuset": draw(lists(value))})) for key, value in of.items()]


@st.composite
def tunings(draw: DrawFn, document: Document, unit: str) -> str:
    """`<cputune>`, its children in any order."""
    children = draw(pins("vcpupin", "vcpu", document.vcpupins))
    children += draw(pins("iothreadpin", "iothread", document.iothreadpins))
    if document.emulatorpin:
        children.append(draw(tags("emulatorpin", {"cpuset": draw(lists(document.emulatorpin))})))
    if draw(st.booleans()):
        children.append(draw(tags("shares", {}, "2048")))
    if draw(st.booleans()):
        children.append(draw(tags("vcpusched", {"vcpus": "0", "scheduler": "fifo", "priority": "1"})))
    children += draw(st.lists(st.sampled_from(DECOYS[:4]), max_size=1))
    inside = draw(joined(draw(st.permutations(children)), f"\n{unit * 2}", f"\n{unit}"))
    return draw(tags("cputune", {}, inside))


@st.composite
def metadata(draw: DrawFn) -> str:
    """libvirt takes one element of each namespace."""
    decoys = draw(st.lists(st.sampled_from((*DECOYS[1:2], *DECOYS[4:])), max_size=2, unique=True))
    return draw(tags("metadata", {}, draw(joined(decoys, "\n", ""))))


@st.composite
def documents(draw: DrawFn) -> Document:
    """A document that libvirt accepts, with or without each thing that a rewriting must look at."""
    keys = st.sets(st.integers(0, 3), max_size=3)
    document = Document(b"", 4)
    document.vcpupins = {vcpu: draw(cpus) for vcpu in sorted(draw(keys))}
    tune, iothreads = draw(st.integers(0, 4)), draw(st.booleans())
    if tune and iothreads:
        document.iothreadpins = {iothread: draw(cpus) for iothread in sorted(draw(st.sets(st.integers(1, 2))))}
    if tune > 1:
        document.emulatorpin = draw(cpus)
    if not tune:
        document.vcpupins = {}
    unit = draw(st.sampled_from(("  ", "  ", "    ", "\t", "")))
    children = [
        draw(tags("name", {}, draw(st.sampled_from(("guest", "g&#228;st", "gäst"))))),
        draw(tags("uuid", {}, UUID)),
        draw(tags("vcpu", {"placement": "static"}, "4")),
        draw(tags("memory", {"unit": "KiB"}, "65536")),
        f"<os>{unit}<type arch='x86_64'>hvm</type></os>",
        draw(tags("description", {}, draw(st.sampled_from(TEXTS)))),
        draw(metadata()),
    ]
    children += [draw(tags("iothreads", {}, "2"))] if iothreads else []
    children += [draw(tunings(document, unit))] if tune else []
    children += draw(st.lists(st.sampled_from(DECOYS), max_size=2))
    inside = draw(joined(draw(st.permutations(children)), f"\n{unit}", "\n"))
    document.data = draw(encoded(draw(tags("domain", {"type": "kvm"}, inside))))
    return document


@st.composite
def encoded(draw: DrawFn, text: str) -> bytes:
    """`text` behind a declaration or none, in an encoding that holds it, with one of the three line ends."""
    encoding = draw(st.sampled_from(("", "", "utf-8", "UTF-8", "iso-8859-1", "ISO-8859-15", "windows-1252")))
    quote = draw(st.sampled_from("'\""))
    if encoding:
        space = draw(st.sampled_from(("\n", "", " ", "\n<!-- head -->\n")))
        text = f"<?xml version={quote}1.0{quote} encoding={quote}{encoding}{quote}?>{space}{text}"
    text += draw(st.sampled_from(("", "\n", "\n<!-- end -->\n")))
    text = text.replace("\n", draw(st.sampled_from(("\n", "\n", "\r\n", "\r"))))
    mark = b"\xef\xbb\xbf" if encoding in ("", "utf-8", "UTF-8") and draw(st.integers(0, 5)) == 0 else b""
    return mark + text.encode(encoding or "utf-8")
