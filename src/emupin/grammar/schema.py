"""Typed access to the values of a policy file: every complaint has its line, path, what is allowed and a near miss."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import PolicyError
from emupin.base.frozen import Frozen
from emupin.base.nearmiss import did_you_mean, near_miss
from emupin.engine.checks import CHECKS
from emupin.grammar.nodes import Mapping, Scalar, Sequence, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.grammar.nodes import Node

KEYS: dict[str, tuple[str, ...]] = {
    "": ("version", "host", "defaults", "rules"),
    "host": ("networking", "reserved", "pool"),
    "defaults": ("on_failure", "persist", "iothreads", "drift"),
    "rules[]": (
        "name",
        "match",
        "guest",
        "placement",
        "checks",
        "on_failure",
        "persist",
        "iothreads",
        "vhost",
        "drift",
    ),
    "rules[].match": ("name", "uuid", "flavor", "project", "interface", "pinned", "realtime", "extra_specs"),
    "rules[].checks": tuple(CHECKS),
}
"""The keys of every mapping of the grammar."""

KINDS = {Mapping: "a mapping", Sequence: "a list"}


class Complaints:
    """What is wrong with the file `source`, in the order it was found."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[PolicyError] = []

    def add(self, line: int, what: str, hint: str) -> None:
        self.errors.append(PolicyError(f"{self.source}:{line}", what, hint))

    def in_order(self) -> list[PolicyError]:
        return sorted(self.errors, key=lambda error: int(error.where.rpartition(":")[2]))


class Value(Frozen):
    """A value of the file and the path to it. After a complaint a getter returns something that is never used."""

    node: Node
    path: str
    complaints: Complaints

    def complain(self, what: str, hint: str) -> None:
        self.complaints.add(self.node.line, f"{self.path or 'the policy'}: {what}", hint)

    def mapping(self, form: str, required: tuple[str, ...] = ()) -> dict[str, Value]:
        """The values by key of a mapping that takes the keys of KEYS[`form`]."""
        if not isinstance(self.node, Mapping):
            self.complain(f"must be a mapping, {self._is()}", self._mapping_hint(form))
            return {}
        known: dict[str, Value] = {}
        for key, node in self.node.entries:
            shown = show(key.text) if key.text else "(empty)"
            path = f"{self.path}.{shown}" if self.path else shown
            if key.text in KEYS[form]:
                known[key.text] = Value(node, path, self.complaints)
            else:
                self.complaints.add(key.line, f"{path}: unknown key", _key_hint(key.text, form))
        for missing in (key for key in required if key not in known):
            self.complain(
                f"the key {missing!r} is missing", f"every {form or 'policy'} needs it".replace("rules[]", "rule")
            )
        return known

    def entries(self) -> dict[str, Value] | None:
        """The values by key of a mapping with keys of the user's own; None where it is no mapping."""
        if not isinstance(self.node, Mapping):
            self.complain(
                f"must be a mapping, {self._is()}", 'write names and values, as in {"hw:cpu_policy": dedicated}'
            )
            return None
        return {
            key.text: Value(node, f"{self.path}.{show(key.text) or '(empty)'}", self.complaints)
            for key, node in self.node.entries
        }

    def items(self) -> list[Value]:
        """The items of a list."""
        if not isinstance(self.node, Sequence):
            self.complain(f"must be a list, {self._is()}", 'begin each item with "- "; `[]` is a list of none')
            return []
        return [Value(node, f"{self.path}[{at}]", self.complaints) for at, node in enumerate(self.node.items)]

    def one_or_list(self) -> list[Value]:
        """A single text as a list of one; a list must hold something."""
        if not isinstance(self.node, Sequence):
            return [self]
        if not self.node.items:
            self.complain("is an empty list", "name at least one, or remove the key")
        return self.items()

    def text(self) -> str:
        """Not empty, without blanks around."""
        if not isinstance(self.node, Scalar):
            self.complain(f"must be a text, {self._is()}", self._text_hint())
            return ""
        if not self.node.text.strip():
            self.complain("is empty", "give a value or remove the key")
        elif self.node.text != self.node.text.strip():
            self.complain(f"has spaces around it: {self.node.text!r}", "remove them")
        return self.node.text.strip()

    def word(self, allowed: tuple[str, ...]) -> str:
        """One of the words `allowed`."""
        text = self.text()
        if text and text not in allowed:
            self.complain(
                f"must be {', '.join(allowed[:-1])} or {allowed[-1]}, is {show(text)!r}", near_miss(text, allowed)
            )
        return text

    def boolean(self) -> bool:
        text = self.text()
        if text and text not in ("true", "false"):
            meant = {"yes": "true", "y": "true", "on": "true", "no": "false", "n": "false", "off": "false"}
            lower = text.lower()
            self.complain(
                f"must be true or false, is {show(text)!r}", did_you_mean(meant.get(lower, lower), ("true", "false"))
            )
        return text == "true"

    def cpus(self) -> frozenset[int]:
        text = self.text()
        return self.parse_cpus(text) if text else frozenset()

    def parse_cpus(self, text: str) -> frozenset[int]:
        try:
            return cpuset.parse(text)
        except cpuset.CpuListError as error:
            self.complain(f"not a list of CPUs: {error}", 'write numbers and ranges, as in "0-3,8,^2"')
            return frozenset()

    def _is(self) -> str:
        if not isinstance(self.node, Scalar):
            return f"is {KINDS[type(self.node)]}"
        return f"is the text {show(self.node.text)!r}" if self.node.text else "is empty"

    def _mapping_hint(self, form: str) -> str:
        if isinstance(self.node, Scalar) and ":" in self.node.text:
            return "put a space after the colon"
        removal = "; `{}` matches every guest" if form.endswith("match") else ""
        return f"allowed keys: {', '.join(KEYS[form])}{removal}"

    def _text_hint(self) -> str:
        if isinstance(self.node, Mapping) and len(self.node.entries) == 1:
            key, value = self.node.entries[0]
            if isinstance(value, Scalar) and value.text:
                return f"write {show(f'{key.text}:{value.text}')} without a space after the colon, or quote the text"
            return "quote a text in which a space follows a colon"
        return "write a single value here; quote a text that holds any of [ ] { } ,"


def _key_hint(key: str, form: str) -> str:
    if ":" in key:
        return "put a space after the colon"
    homes = [home for home, keys in KEYS.items() if key in keys]
    if homes and not did_you_mean(key, KEYS[form]):
        places = " or ".join(home or "the top level" for home in homes)
        return f"it belongs in {places}; allowed here: {', '.join(KEYS[form])}"
    return near_miss(key, KEYS[form])
