"""An XML document as a tree of those of its elements that somebody asks for, with their places in its bytes.

Names and prefixes stay as they are written. libvirt takes prefixes that stand for nothing and namespaces whose names
have blanks in them, so nothing here knows namespaces: an element is in one where it is named with a prefix or has an
`xmlns` of its own, and what lies in such an element is reached through it only.
"""

from __future__ import annotations

import pyexpat

from emupin.base.errors import DomainError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    Wanted = Mapping[str, Any]
    """The elements to keep inside of an element, by name, each with what to keep inside of it: another Wanted."""

LARGEST = 16 * 1024 * 1024
"""Bytes; a larger document is refused."""

MOST_ELEMENTS = 1 << 18
"""Elements that somebody asks for; a document with more is refused. A pin for each of the most vCPUs and iothreads that
are read, and a scheduler for each vCPU, are fewer.
"""

NOTHING: Wanted = {}
"""Keep the element, and nothing inside."""

TEXT: Wanted = {"": "text"}
"""Keep the element and its text, that of elements inside included, as XPath's `string()` has it."""

LAST: Wanted = {"": "last"}
"""As NOTHING, for an element that is most of a document and mostly has nothing behind it that is wanted."""


class Element:
    """One element, and the wanted ones inside."""

    __slots__ = ("attributes", "children", "index", "name", "pieces", "plain", "start", "wanted")

    def __init__(self, name: str, attributes: Mapping[str, str], start: int, wanted: Wanted) -> None:
        self.name, self.attributes, self.wanted = name, attributes, wanted
        self.plain = "" if ":" in name or attributes.get("xmlns") else name
        """The name of an element that is in no namespace; empty for others."""
        self.start = self.index = start
        """Of its start tag, and expat's at its end (see `splice.element_end`); both count bytes."""
        self.children: list[Element] = []
        self.pieces: list[str] = []
        """Of its text."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def all(self, name: str, *inside: str) -> list[Element]:
        """The elements at the path `name`, `*inside`, from the outside in."""
        found = [child for child in self.children if child.plain == name]
        return [each for child in found for each in child.all(*inside)] if inside else found

    def first(self, name: str, *inside: str) -> Element | None:
        """The first of them, None where there is none."""
        for child in self.children:
            if child.plain == name and (found := child.first(*inside) if inside else child):
                return found
        return None


class Document:
    """A document that is read strictly: whatever is refused is named by file and line."""

    def __init__(self, data: bytes, source: str, root: str, hint: str) -> None:
        """`source` names it in errors; `hint` tells what to do about a root element that is not `root`."""
        self.data, self.source, self.root, self.hint = data, source, root, hint
        self.lists: dict[str, frozenset[int]] = {}
        """Of CPUs, by the texts that name them."""
        self.named = 0
        """How many CPUs those name together."""

    def refuse(self, where: int, what: str, hint: str) -> NoReturn:
        """Raise DomainError for what is at the offset `where`. Lines end as XML says: at LF, CR LF or CR."""
        before = self.data[:where]
        line = 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
        raise DomainError(f"{self.source}:{line}", what, hint)

    def parse(self, wanted: Wanted) -> Element:
        """The root element, and what is `wanted` inside.

        Raises DomainError where the document is larger than 16 MiB, UTF-16, has a DOCTYPE, is not well-formed or has
        another root.
        """
        if len(self.data) > LARGEST:
            self.refuse(0, "larger than 16 MiB", "a domain XML is a few kilobytes: wrong file?")
        if self.data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in self.data[:4]:
            self.refuse(0, "UTF-16 or UTF-32", "convert it with `iconv -t UTF-8` and correct its XML declaration")
        document, parser = Element("", {}, 0, {self.root: wanted}), pyexpat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._handlers(parser, document)
        parser.StartDoctypeDeclHandler = lambda *_: self.refuse(
            parser.CurrentByteIndex, "has a DOCTYPE", "a domain XML never has one: remove it"
        )
        parser.XmlDeclHandler = self._check_encoding
        try:
            parser.Parse(self.data, True)
        except pyexpat.ExpatError as error:
            raise DomainError(
                f"{self.source}:{error.lineno}:{error.offset + 1}",
                f"not well-formed XML ({pyexpat.ErrorString(error.code)})",
                "run `xmllint --noout` to locate it",
            ) from None
        finally:  # Parser and handlers hold each other, for as long as no garbage collector comes.
            parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
            parser.StartDoctypeDeclHandler = parser.XmlDeclHandler = None
        root = document.children[0]
        if not root.plain:
            self._refuse_root(root.start, root.name, root.attributes)
        return root

    def _handlers(
        self, parser: pyexpat.XMLParserType, document: Element
    ) -> tuple[Callable[[str, dict[str, str]], None], Callable[[str], None]]:
        """What is called for the start and the end of every element, to put the wanted ones into `document`.

        Closures: a call of a bound method takes half as long again.
        """
        skipped, path = Element("", {}, 0, NOTHING), [document]
        enter, leave = path.append, path.pop

        def start(name: str, attributes: dict[str, str]) -> None:
            outer = path[-1]
            wanted = outer.wanted.get(name)
            if wanted is None:
                if outer is document:
                    self._refuse_root(parser.CurrentByteIndex, name, attributes)
                enter(skipped)
                return
            element = Element(name, attributes, parser.CurrentByteIndex, wanted)
            outer.children.append(element)
            if len(outer.children) > MOST_ELEMENTS:
                self.refuse(element.start, f"more than {MOST_ELEMENTS} elements in <{outer.name}>", "wrong file?")
            enter(element)
            if wanted is TEXT:
                parser.CharacterDataHandler = element.pieces.append
            elif wanted is LAST and self._is_last(element, outer.wanted):
                parser.StartElementHandler = parser.EndElementHandler = None

        def end(_name: str) -> None:
            element = leave()
            if element is not skipped:
                element.index = parser.CurrentByteIndex
                if element.wanted is TEXT:
                    parser.CharacterDataHandler = None

        return start, end

    def _is_last(self, element: Element, wanted: Wanted) -> bool:
        """Whether nothing that looks like a `wanted` element follows the first that looks like the end of `element`.

        That one is never behind the true end where the start tag ends in its name, so `element` is not closed by it.
        """
        name = element.name.encode()
        if not self.data.startswith(b"<%b>" % name, element.start):
            return False
        end = self.data.find(b"</" + name, element.start)
        # Its like first: each of many is asked no further than the next.
        return all(self.data.find(b"<" + each.encode(), end) < 0 for each in (element.name, *wanted))

    def _refuse_root(self, where: int, name: str, attributes: Mapping[str, str]) -> NoReturn:
        prefix, _, local = name.rpartition(":")
        namespace = attributes.get(f"xmlns:{prefix}" if prefix else "xmlns")
        found = f"<{local}> of the namespace {namespace!r}" if namespace else f"<{name}>"
        self.refuse(where, f"the root element is {found}, not libvirt's <{self.root}>", self.hint)

    def _check_encoding(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is None:
            return
        try:
            decoded = bytes(range(0x100)).decode(encoding, "replace")
        except (LookupError, UnicodeError):
            decoded = ""
        # Pins are ASCII: it must be a superset. Multi-byte encodings other than UTF-8 are beyond pyexpat.
        if len(decoded) != 0x100 or not decoded.startswith(bytes(range(0x80)).decode()):
            self.refuse(0, f"encoding {encoding!r} is not supported", "convert it to UTF-8")
        if encoding.lower() in ("utf8", "utf_8") and not self.data.isascii():  # Python's names, which expat asks for.
            self.refuse(0, f"encoding {encoding!r} is not XML's name of it", "write UTF-8 in its XML declaration")
