"""Decisions as data inside a page: columns of numbers for all of them at once, and details in pieces, read when shown.

A page of 50,000 decisions must open and filter without stalling. What a filter looks at is in columns, one number for
each decision, which stand for the texts of one table. The rest is in pieces of PIECE decisions each, which the browser
keeps as text until one of them is looked at.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PIECE = 200

COLUMNS = (
    "time", "host", "name", "uuid", "op", "outcome", "rule", "placement", "before", "after", "reason", "replay",
)  # fmt: skip
"""What is listed, filtered and searched."""

DETAILS = (
    "where", "version", "warnings", "diff", "sha_before", "sha_after", "policy", "topology", "online", "vcpus",
    "others", "previous", "placements", "differences", "why",
)  # fmt: skip
"""What is shown of one decision besides."""

DANGEROUS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
"""Characters that might end a script element, or begin a comment in it: as JSON writes them, too."""


def encode(value: Any) -> str:
    """`value` as JSON that may stand inside a script element: ASCII, without `<`, `>` and `&`."""
    return json.dumps(value, separators=(",", ":")).translate(DANGEROUS)


class Interned:
    """Values, each kept once, by the order in which they came."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        text = encode(value)
        return self.numbers.setdefault(text, len(self.numbers))

    def encode(self) -> str:
        return f"[{','.join(self.numbers)}]"


class Islands:
    """All decisions of a page."""

    def __init__(self) -> None:
        self.texts = Interned()
        self.columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self.pieces: list[str] = []
        self._open: list[list[int]] = []
        self._values = Interned()

    def __len__(self) -> int:
        return len(self.columns["time"])

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a decision, which has all of COLUMNS and DETAILS."""
        for name, column in self.columns.items():
            column.append(self.texts.number(row[name]))
        self._open.append([self._values.number(row[name]) for name in DETAILS])
        if len(self._open) == PIECE:
            self._close()

    def _close(self) -> None:
        self.pieces.append(f'{{"values":{self._values.encode()},"rows":{encode(self._open)}}}')
        self._open, self._values = [], Interned()

    def finish(self) -> None:
        """No more is added."""
        if self._open:
            self._close()

    def index(self, facts: Mapping[str, Any]) -> str:
        """The columns and their texts, and `facts` that are the same for all."""
        columns = ",".join(f'"{name}":{_numbers(column)}' for name, column in self.columns.items())
        form = {"piece": PIECE, "details": DETAILS, **facts}
        return f'{encode(form)[:-1]},"texts":{self.texts.encode()},"columns":{{{columns}}}}}'


def _numbers(column: Sequence[int] | Iterable[int]) -> str:
    return f"[{','.join(map(str, column))}]"
