"""What a proof of the audit trail says: findings, remarks, and which lines are the trail."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

CHANGED, INSERTED, REORDERED, CUT, UNENDED = "changed", "inserted", "reordered", "cut", "unended"
MISSING, ANEW, LOST_ENTRIES, DAMAGED = "missing", "anew", "lost", "damaged"
"""What a finding is."""
TORN, OLDER, HEAD_REMARK = "torn", "older", "head"
"""What a remark is: nothing that speaks against the trail."""
REMARKS = (TORN, OLDER, HEAD_REMARK)


@dataclass(frozen=True)
class Finding:
    """What is to be said of one place of the trail."""

    place: str
    kind: str
    text: str

    @property
    def is_remark(self) -> bool:
        return self.kind in REMARKS

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.text}"


@dataclass(frozen=True)
class Head:
    """What `audit head` printed once, and somebody kept elsewhere."""

    digest: str
    """The hash of the line that was the last one then."""
    count: int | None = None
    """How many entries the trail had, from its start to that line."""


@dataclass(frozen=True)
class Verdict:
    """What came of a proof."""

    findings: tuple[Finding, ...]
    entries: int
    head: str | None
    """The hash of the last line."""
    time: str | None
    """The last entry's."""
    lines: int = 0
    """All of them, those that are no entries too."""
    spans: tuple[tuple[int, int], ...] = ()
    """The lines that the last entry goes back to, link by link: numbers of first and last ones, from 1, ascending."""

    @property
    def is_sound(self) -> bool:
        return all(finding.is_remark for finding in self.findings)

    def proves(self, ordinal: int) -> bool:
        """Whether the line of that number is part of the chain that leads to the last entry."""
        at = bisect_right(self.spans, (ordinal, self.lines))
        return at > 0 and ordinal <= self.spans[at - 1][1]
