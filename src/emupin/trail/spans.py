"""Which lines of a trail are its chain: runs of lines that go on from each other, and where they break."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Spans = tuple[tuple[int, int], ...]


class Links:
    """The lines by number, from 1: each goes on from the one before it, but for those that start a run of their own."""

    def __init__(self, targets: Mapping[int, int]) -> None:
        """`targets` has the first line of every run but the first, and the line that it goes on from; 0: none here."""
        self.targets = targets
        self.starts = sorted(targets)
        self._sizes: dict[int, int] = {}

    def start(self, line: int) -> int:
        """The first line of the run that `line` is in."""
        at = bisect_right(self.starts, line)
        return self.starts[at - 1] if at else 1

    def back(self, end: int) -> Spans:
        """The lines that line `end` goes back to, itself included: first and last lines of runs, ascending."""
        spans = []
        while end:
            start = self.start(end)
            spans.append((start, end))
            end = self.targets.get(start, 0)
        return tuple(sorted(spans))

    def size(self, end: int) -> int:
        """How many lines `back` has."""
        ahead = []
        while end and (start := self.start(end)) not in self._sizes:
            ahead.append((start, end))
            end = self.targets.get(start, 0)
        size = self._sizes[start] + end - start + 1 if end else 0
        for start, last in reversed(ahead):
            self._sizes[start] = size  # What is ahead of the run.
            size += last - start + 1
        return size


def chain(links: Links, last: int, heads: list[int], is_sought: bool) -> Spans:
    """The lines that are the chain, by what vouches for its end; `last` is the last entry's, `heads` those of heads.

    A head vouches for its line, and that for those that go on from it. Where a head that is sought names no line, the
    last one is nobody's word. Without any head it is the end that most lines lead to.
    """
    if heads:
        newest = max(heads)
        return links.back(next((start - 1 for start in links.starts if start > newest), last))
    if is_sought:
        return tuple((first, end - (end == last)) for first, end in links.back(last) if first < last)
    return links.back(max((last, *(start - 1 for start in links.starts)), key=links.size))
