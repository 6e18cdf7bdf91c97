"""Proves that an audit trail is what was written: each line has the hash of the one before, the head that of the last.

A line that does not fit the one before says that something is wrong between them; looking up where the line stands that
it goes on from says what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from emupin.base.errors import HostError
from emupin.base.text import printable
from emupin.trail.findings import (
    ANEW,
    CHANGED,
    CUT,
    DAMAGED,
    HEAD_REMARK,
    INSERTED,
    LOST_ENTRIES,
    MISSING,
    OLDER,
    REORDERED,
    TORN,
    UNENDED,
    Finding,
    Head,
    Verdict,
)
from emupin.trail.lines import DamagedError, Line, entry, is_rotated, read_file, text_of
from emupin.trail.spans import Links, chain
from emupin.trail.writer import HEAD, LOST, lost_entries, told_lost

BEFORE_MARKS = "0.1.0"
"""The version whose writer did not mark the first entry of a file that a rotation began."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class _At:
    """A line once it has been read: where it stands, and its hash."""

    ordinal: int
    place: str
    digest: str


@dataclass(frozen=True)
class _Break:
    """A line that does not go on from the one before."""

    before: _At
    at: _At
    previous: str | None
    told: bool = False
    """Another finding says what is wrong here."""


def verify(paths: Sequence[str], kept: str | None = None, exported: Sequence[Head] = ()) -> Verdict:
    """Prove the trail in the files `paths`, the oldest first.

    `kept` is the head beside the trail; each `exported` one was kept elsewhere, when the trail was shorter perhaps.
    Raises HostError where a file cannot be read.
    """
    walk = _Walk(frozenset([kept or "", *(head.digest for head in exported)]))
    for line in _lines(paths, walk.findings.append):
        walk.take(line)
    walk.finish()
    places = _places(walk.breaks, paths)
    found = [*walk.findings, *_explain(walk.breaks, places), *_check_heads(walk, kept, exported)]
    last = walk.last.digest if walk.last else None
    return Verdict(tuple(found), walk.entries, last, walk.time, walk.lines, _spans(walk, places))


def _lines(paths: Iterable[str], report: Callable[[Finding], None]) -> Iterator[Line]:
    for path in paths:
        try:
            yield from read_file(path)
        except DamagedError as error:
            report(Finding(error.where, DAMAGED, error.what))


@dataclass
class _Walk:
    """One pass over all lines."""

    sought: frozenset[str]
    """Hashes of lines whose place is wanted: the heads."""
    findings: list[Finding] = field(default_factory=list)
    breaks: list[_Break] = field(default_factory=list)
    heads: dict[str, tuple[_At, int]] = field(default_factory=dict)
    """Where they are, and how many entries the trail has from its start to there."""
    first: _At | None = None
    lines: int = 0
    entries: int = 0
    time: str | None = None
    last: _At | None = None
    whole: _At | None = None
    """The last line that is an entry."""
    doubtful: list[Line] = field(default_factory=list)
    """The lines since then."""

    def take(self, line: Line) -> None:
        self.lines += 1
        at = _At(self.lines, line.place, line.digest)
        self.first = self.first or at
        value = entry(line.data)
        if value is None:
            self.doubtful.append(line)
        else:
            self._take_entry(line, at, value)
            self.whole = at
        if at.digest in self.sought:
            self.heads[at.digest] = at, self.entries
        self.last = at

    def _take_entry(self, line: Line, at: _At, value: Mapping[str, Any]) -> None:
        self.entries += 1
        self.time = text_of(value, "time") or self.time
        if self.doubtful:
            self._judge(line, at, value)
        elif self.last is None:
            self._check_start(line, at, value, value["previous"])
        elif value["previous"] != self.last.digest:
            self.breaks.append(_Break(self.last, at, value["previous"]))
        if value.get("op") == "gap":
            self.findings.append(Finding(at.place, LOST_ENTRIES, text_of(value, "reason") or "entries are missing"))
        elif value.get("op") == "mend" and not self.doubtful:
            self.findings.append(Finding(at.place, TORN, "only the line end of the previous line was missing"))
        self.doubtful = []

    def _judge(self, line: Line, at: _At, value: Mapping[str, Any]) -> None:
        """Are the lines before, which are no entries, a torn one that the entry `value` mends, or somebody's work?"""
        whole = self.whole.digest if self.whole else None
        data = b"".join(each.data for each in self.doubtful)
        digests = [sha256(data + end).hexdigest() for end in (b"", b"\n")]
        told = value.get("op") == "mend" and value.get("torn") in digests and whole in (None, value.get("intact"))
        if told and not self.whole:
            self._check_start(line, at, value, value.get("intact"))
        rotated = len(self.doubtful) == 1 and not data.endswith(b"\n") and value["previous"] == whole
        for each in self.doubtful:
            if told or (rotated and not is_unended(each)):
                text = "a write was interrupted here (power loss?); the next entry accounts for it"
                self.findings.append(Finding(each.place, TORN, text))
            elif rotated:
                text = f"an entry without a line end, and {at.place} does not link to it: it was appended"
                self.findings.append(Finding(each.place, UNENDED, text))
            elif value["previous"] == whole:
                text = f"is not an entry, and {at.place} does not link to it"
                self.findings.append(Finding(each.place, INSERTED, text))
            else:
                self.findings.append(Finding(each.place, CHANGED, "is not an entry: it was changed or inserted"))
        if self.whole and not told and value["previous"] != whole:
            self.breaks.append(_Break(self.whole, at, value["previous"], told=True))

    def _check_start(self, line: Line, at: _At, value: Mapping[str, Any], link: object) -> None:
        """The first entry, `value`, goes on from `link`, of which nothing was given: could a rotation be why?"""
        if link is None:
            return
        if value.get("rotated") is not True and value.get("emupin") not in (None, BEFORE_MARKS):
            text = "lines before it were removed: no log rotation starts a file with this entry"
            self.findings.append(Finding(at.place, MISSING, text))
        elif is_rotated(line.file):
            text = "the given trail starts here; earlier entries are in older files, or were rotated away"
            self.findings.append(Finding(at.place, OLDER, text))
        else:
            text = "does not link to any entry given: lines before it were removed, or a rotated file is missing"
            self.findings.append(Finding(at.place, MISSING, text))

    def finish(self) -> None:
        """Judge what stands behind the last entry."""
        for line in self.doubtful:
            if is_unended(line):
                text = "an entry without a line end, which the writer never leaves behind: it was appended or cut"
                self.findings.append(Finding(line.place, UNENDED, text))
            elif line is self.doubtful[-1] and not line.data.endswith(b"\n"):
                text = "the last line is incomplete, or is being written; the next entry will account for it"
                self.findings.append(Finding(line.place, TORN, text))
            else:
                self.findings.append(Finding(line.place, CHANGED, "is not an entry: it was changed or inserted"))


def is_unended(line: Line) -> bool:
    """Whether it is a complete entry that lacks its line end: a write that was broken off leaves less."""
    return not line.data.endswith(b"\n") and entry(line.data + b"\n") is not None


def _places(breaks: Sequence[_Break], paths: Sequence[str]) -> dict[str, _At]:
    """Where the lines stand that should be before each break, by their hashes; a second pass over the files."""
    wanted = {each.previous for each in breaks} - {None}
    places: dict[str, _At] = {}
    if wanted:
        for number, line in enumerate(_lines(paths, lambda _: None), 1):
            digest = line.digest
            if digest in wanted:
                places[digest] = _At(number, line.place, digest)
    return places


def _spans(walk: _Walk, places: Mapping[str, _At]) -> tuple[tuple[int, int], ...]:
    """The lines that are the chain."""
    targets = {each.at.ordinal: places.get(each.previous or "") for each in walk.breaks}
    links = Links({start: target.ordinal if target else 0 for start, target in targets.items()})
    heads = [at.ordinal for at, _ in walk.heads.values()]
    return chain(links, walk.whole.ordinal if walk.whole else 0, heads, any(walk.sought))


def _explain(breaks: Sequence[_Break], places: Mapping[str, _At]) -> Iterator[Finding]:
    for each in breaks:
        if not each.told:
            yield _meaning(each, places.get(each.previous or ""))


def _meaning(found: _Break, target: _At | None) -> Finding:
    """`target` is the line that the later line goes on from."""
    before, at = found.before, found.at
    if found.previous is None:
        return Finding(
            at.place, ANEW, "the chain starts over: the earlier trail was replaced, or its files were missing"
        )
    if target is None:
        text = f"was changed, or entries between it and {at.place} were removed"
        return Finding(before.place, CHANGED, text)
    if target.ordinal < before.ordinal:
        text = f"lines between {target.place} and {at.place} were inserted: the latter links directly to the former"
        return Finding(before.place, INSERTED, text)
    return Finding(at.place, REORDERED, f"stands before the line that it links to, {target.place}")


def _check_heads(walk: _Walk, kept: str | None, exported: Sequence[Head]) -> Iterator[Finding]:
    """Is the trail as long as it was when its heads were kept, at both ends?"""
    place = walk.last.place if walk.last else "the trail"
    if kept:
        yield from _check_end(walk, kept, HEAD.lstrip("/"), place)
        found = walk.heads.get(kept)
        if found and walk.whole and found[0].ordinal < walk.whole.ordinal:
            count = walk.whole.ordinal - found[0].ordinal
            yield Finding(found[0].place, HEAD_REMARK, f"{HEAD.lstrip('/')} names this line; lines after it: {count}")
    for head in exported:
        yield from _check_end(walk, head.digest, "--head", place)
        yield from _check_count(walk, head)
    if kept or exported:
        return
    if not walk.entries:
        yield Finding(place, MISSING, "there is no entry, so nothing is proved")
    else:
        yield Finding(place, HEAD_REMARK, "no head to compare with: lines removed at the end would go unnoticed")


def _check_end(walk: _Walk, head: str, origin: str, place: str) -> Iterator[Finding]:
    if head not in walk.heads:
        text = f"the line that {origin} names, {head}, is missing: the end was removed, or the last line changed"
        yield Finding(place, CUT, text)


def _check_count(walk: _Walk, head: Head) -> Iterator[Finding]:
    """The entries ahead of an exported head are as many as they were."""
    at, count = walk.heads.get(head.digest, (None, 0))
    if at and walk.first and head.count is not None and count < head.count:
        missing = "1 entry is" if head.count - count == 1 else f"{head.count - count} entries are"
        text = (
            f"{missing} missing before the line that --head names: removed, or rotated away since;"
            " also give the older files"
        )
        yield Finding(walk.first.place, MISSING, text)


def pending(root: str) -> list[Finding]:
    """Entries that could not be written and of which the trail does not tell yet. Raises HostError."""
    try:
        lost = lost_entries(root)
    except OSError as error:
        raise HostError(root + LOST, f"cannot be read: {error.strerror}", "run it as root") from None
    text = f"{printable(told_lost(lost))}; the next entry will say so" if lost else ""
    return [Finding(root + LOST, LOST_ENTRIES, text)] if lost else []
