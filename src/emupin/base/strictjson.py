"""A JSON file read strictly: every complaint names the file, the path of the key, and what is allowed there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.nearmiss import near_miss
from emupin.base.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXAMPLE = 'write numbers and ranges, as in "0-3,8"'

LONGEST = 60
"""Characters of a value that a complaint shows."""


class Fields:
    """One JSON object and where it stands."""

    def __init__(self, values: dict[str, Any], source: str, path: str = "") -> None:
        self.values, self.source, self.path = values, source, path

    @classmethod
    def load(cls, data: bytes, source: str) -> Fields:
        """The object that `data` spells. Raises HostError."""

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            for at, (key, _) in enumerate(pairs):
                if key in [earlier for earlier, _ in pairs[:at]]:
                    raise HostError(source, f"the key {show(key)} is listed twice", "remove one of them")
            return dict(pairs)

        try:
            values = json.loads(data.decode(), object_pairs_hook=unique)
        except UnicodeDecodeError:
            raise HostError(source, "is not UTF-8", "check that this is the right file") from None
        except json.JSONDecodeError as error:
            hint = "is this a file that `emupin host --snapshot` wrote?"
            raise HostError(f"{source}:{error.lineno}", f"not JSON: {error.msg}", hint) from None
        except (RecursionError, ValueError):  # Nested a thousand deep, or a number of thousands of digits.
            raise HostError(source, "not JSON, or nested too deeply", "check that this is the right file") from None
        if not isinstance(values, dict):
            raise HostError(source, f"must be an object, is {kind(values)}", "is this a recorded host?")
        return cls(values, source)

    def refuse(self, key: str, what: str, hint: str) -> NoReturn:
        where = f"{self.path}.{key}" if self.path and key else self.path or key
        raise HostError(f"{self.source}: {printable(where)}" if where else self.source, what, hint)

    def only(self, allowed: Sequence[str]) -> None:
        for key in self.values:
            if key not in allowed:
                self.refuse("", f"unknown key {show(key)}", near_miss(key, allowed))

    def need(self, key: str, hint: str) -> Any:
        if key not in self.values:
            self.refuse("", f"the key {key!r} is missing", hint)
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.values[key]
        return value if isinstance(value, str) else self.refuse(key, f"must be a text, is {kind(value)}", "quote it")

    def texts(self, key: str) -> dict[str, str]:
        """The texts of an object that need not be there."""
        form = self.inner(key) if key in self.values else None
        return {name: form.text(name) for name in form.values} if form else {}

    def inner(self, key: str) -> Fields:
        value = self.values[key]
        if not isinstance(value, dict):
            self.refuse(key, f"must be an object, is {kind(value)}", 'write {"KEY": "CPUS"}')
        return Fields(value, self.source, f"{self.path}.{key}" if self.path else key)

    def cpus(self, key: str) -> frozenset[int]:
        """A CPU list; the empty text is no CPU."""
        return self.parse_cpus(key, self.values[key])

    def parse_cpus(self, key: str, value: object) -> frozenset[int]:
        if not isinstance(value, str):
            self.refuse(key, f"must be a text that lists CPUs, is {kind(value)}", EXAMPLE)
        try:
            return cpuset.parse_kernel(value)
        except cpuset.CpuListError as error:
            self.refuse(key, f"not a list of CPUs: {error}", EXAMPLE)

    def cpu_lists(self, key: str) -> list[tuple[str, frozenset[int]]]:
        """The CPU lists of an array, each with its path."""
        value = self.values[key]
        if not isinstance(value, list):
            self.refuse(key, f"must be an array of CPU lists, is {kind(value)}", 'write ["0,32", "1,33"]')
        return [(f"{key}[{at}]", self.parse_cpus(f"{key}[{at}]", item)) for at, item in enumerate(value)]

    def check_groups(self, groups: Iterable[tuple[str, frozenset[int]]], online: frozenset[int]) -> None:
        """Every group has CPUs, all of them online, and none that another group has too."""
        taken: dict[int, str] = {}
        for key, cpus in groups:
            if not cpus:
                self.refuse(key, "names no CPU", "omit it, or name its CPUs")
            if not cpus <= online:
                absent = cpus - online
                one = len(absent) == 1
                what = f"CPU{'' if one else 's'} {cpuset.format(absent)} {'is' if one else 'are'} not in `online`"
                self.refuse(key, what, f"online are {cpuset.format(online)}")
            for cpu in sorted(cpus):
                if cpu in taken:
                    self.refuse(key, f"CPU {cpu} is in {taken[cpu]} too", "a CPU belongs to one group only")
                taken[cpu] = key


def kind(value: object) -> str:
    """What JSON calls `value`, with the value where it is short."""
    names = {dict: "an object", list: "an array", str: "the text", bool: "the word", int: "the number"}
    name = names.get(type(value), "the value")
    return name if isinstance(value, (dict, list)) else f"{name} {show(value)}"


def show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
