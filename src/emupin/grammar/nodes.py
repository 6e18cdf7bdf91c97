"""The values of a policy file as located text, and the tree they grow into: no guess at types, each with its line."""

from __future__ import annotations

from emupin.base.errors import PolicyError
from emupin.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Union

    Node = Union["Scalar", "Sequence", "Mapping"]

DEEPEST = 16
"""Levels of nesting; the grammar has five."""

QUOTE = 'quote a text that YAML could misread, as in "*-test", "[a-z]*" or "a: b"'


class Scalar(Frozen):
    line: int
    text: str


class Sequence(Frozen):
    line: int
    items: tuple[Node, ...]


class Mapping(Frozen):
    line: int
    entries: tuple[tuple[Scalar, Node], ...]


def show(text: str) -> str:
    """`text`, shortened to fit a message."""
    return text if len(text) <= 60 else f"{text[:59]}…"


class _Open:
    """A list or mapping whose end has not been seen; of a mapping, `nodes` holds keys and values in turn."""

    def __init__(self, line: int, path: str, anchor: str | None, is_mapping: bool) -> None:
        self.line, self.path, self.anchor, self.is_mapping = line, path, anchor, is_mapping
        self.keys: dict[str, int] = {}
        """Lines of a mapping's keys so far."""
        self.nodes: list[Node] = []

    def wants_key(self) -> bool:
        return self.is_mapping and len(self.nodes) % 2 == 0

    def path_of(self, key: str) -> str:
        return f"{self.path}.{show(key)}" if self.path else show(key)

    def next_path(self) -> str:
        """Of the value that comes next."""
        if not self.is_mapping:
            return f"{self.path}[{len(self.nodes)}]"
        return self.path_of(next(reversed(self.keys))) if self.keys else self.path

    def close(self) -> Node:
        if not self.is_mapping:
            return Sequence(self.line, tuple(self.nodes))
        keys = [node for node in self.nodes[::2] if isinstance(node, Scalar)]
        return Mapping(self.line, tuple(zip(keys, self.nodes[1::2])))


class Tree:
    """A document that grows by events."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: Node | None = None
        self.open: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}
        """None while the value that has the anchor is still open."""

    def refuse(self, line: int, what: str, hint: str) -> NoReturn:
        raise PolicyError(f"{self.source}:{line}", what, hint)

    def start(self, line: int, is_mapping: bool, anchor: str | None = None) -> None:
        if self.open and self.open[-1].wants_key():
            self.refuse(line, "a list or mapping stands where a key should be", QUOTE)
        if len(self.open) == DEEPEST:
            self.refuse(line, "nested too deeply", f"a policy has no more than {DEEPEST} levels")
        if anchor:
            self.anchors[anchor] = None
        self.open.append(_Open(line, self.open[-1].next_path() if self.open else "", anchor, is_mapping))

    def end(self) -> None:
        closed = self.open.pop()
        self.add(closed.close(), closed.anchor)

    def scalar(self, line: int, text: str, anchor: str | None = None) -> None:
        odd = next((char for char in text if not char.isprintable()), None)
        if odd:
            self.refuse(
                line,
                f"the text {text[:60]!a} holds the character {odd!a}",
                "keep to printable text on one line",
            )
        self.add(Scalar(line, text), anchor)

    def alias(self, line: int, name: str) -> None:
        if name not in self.anchors:
            self.refuse(
                line, f"unknown alias *{show(name)}", f'quote a pattern that begins with *, as in "*{show(name)}"'
            )
        node = self.anchors[name]
        if node is None:
            self.refuse(line, f"alias *{show(name)} stands inside the value it names", "write the value out")
        self.add(node, None)

    def add(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        if self.open[-1].wants_key():
            self.add_key(node, self.open[-1])
        self.open[-1].nodes.append(node)

    def add_key(self, node: Node, mapping: _Open) -> None:
        if not isinstance(node, Scalar):
            self.refuse(node.line, "a list or mapping stands where a key should be", QUOTE)
        if node.text in mapping.keys:
            first = f"the first is on line {mapping.keys[node.text]}: keep one"
            self.refuse(node.line, f"{mapping.path_of(node.text)}: duplicate key", first)
        mapping.keys[node.text] = node.line
