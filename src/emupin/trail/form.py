"""What each kind of entry must carry, and which of its fields follow from others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from emupin.base import cpuset
from emupin.trail.query import moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DECIDING = ("prepare", "migrate", "restore", "started", "reconnect", "attach", "apply")
"""Operations whose entries are decisions, or failures ahead of one."""

FAILED = ("failed", "refused")

EVERY = ("time", "host", "op", "outcome", "reason", "emupin")
"""What every entry has that the hook or a command writes."""
DECISION = ("uuid", "name", "rule", "placement", "before", "after", "warnings", "diff",
            "sha256_before", "sha256_after", "policy", "topology", "facts")  # fmt: skip
"""What a decision has besides."""
DECIDED = ("rule", "policy", "topology", "facts", "decided")
"""What shows that an entry of a failure has a decision ahead of it."""
RECORD = ("uuid", "name", "rule", "placement", "before", "after", "diff", "policy")

OTHERS: dict[str, tuple[str, ...]] = {
    "record": (*EVERY, *RECORD),
    "undo": (*EVERY, *RECORD),
    "gap": ("reason",),
    "mend": ("reason", "intact", "torn"),
}
"""The other operations. `gap` and `mend` are the writer's own, beside an entry of another kind."""

PIN = re.compile(r"""<emulatorpin\s[^>]*?\bcpuset\s*=\s*(["'])(.*?)\1""")


def is_decision(entry: Mapping[str, Any]) -> bool:
    """Whether `entry` records a decision: of a deciding operation, unless it failed ahead of one."""
    if entry.get("op") not in DECIDING:
        return False
    return entry.get("outcome") not in FAILED or not entry.keys().isdisjoint(DECIDED)


def lacking(entry: Mapping[str, Any]) -> str:
    """What `entry` must carry and does not, for a sentence; empty where all is there."""
    needed = _needed(entry)
    return "a known operation" if needed is None else ", ".join(key for key in needed if key not in entry)


def _needed(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The keys of an entry of this kind; None for an operation that is not known."""
    operation = entry.get("op")
    if operation in DECIDING:
        return (*EVERY, *DECISION) if is_decision(entry) else (*EVERY, "name")
    return OTHERS.get(operation) if isinstance(operation, str) else None


def follows(entry: Mapping[str, Any], after: str | None) -> Iterator[tuple[str, Any, Any]]:
    """Each field of a decision that is not what others make it: its name, what it says, and what it must say.

    `after` is the pin that the facts lead to. A field that follows from no other must have the shape that it is
    written with.
    """
    before = entry["facts"]["emulatorpin"]
    if entry["before"] != before:
        yield "before", entry["before"], before
    yield from _digests(entry)
    yield from _diff(entry, before, after)
    if moment(entry["time"]) is None:
        yield "time", entry["time"], "a time"
    for key in ("host", "uuid"):
        if not (isinstance(entry[key], str) and entry[key]):
            yield key, entry[key], "a text"


def _digests(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    before, after = entry["sha256_before"], entry["sha256_after"]
    for key in ("sha256_before", "sha256_after"):
        if not (isinstance(entry[key], str) and re.fullmatch("[0-9a-f]{64}", entry[key])):
            yield key, entry[key], "a SHA-256"
    if not entry["diff"] and after != before:
        yield "sha256_after", after, before
    if entry["diff"] and after == before:
        yield "sha256_after", after, "another digest than before"


def _diff(entry: Mapping[str, Any], before: str | None, after: str | None) -> Iterator[tuple[str, Any, Any]]:
    """The pins that the diff takes out and puts in, where it holds whole elements."""
    diff = entry["diff"]
    if not (isinstance(diff, list) and all(isinstance(line, str) and line[:1] in ("-", "+") for line in diff)):
        yield "diff", diff, "lines that begin with - or +"
        return
    if diff and entry["outcome"] in ("unchanged", *FAILED):
        yield "outcome", entry["outcome"], "a change"
    for sign, pins in (("-", (before,)), ("+", (after, entry["after"]))):  # If `after` differs, that is told already.
        found = PIN.search("\n".join(line[1:] for line in diff if line[0] == sign))
        if found and not any(_same(found[2], pin) for pin in pins):
            yield "diff", f"{sign} {found[2]}", f"{sign} {pins[0]}"


def _same(written: str, pin: object) -> bool:
    """Whether an attribute spells the CPUs of `pin`."""
    try:
        return isinstance(pin, str) and cpuset.parse(written) == cpuset.parse(pin)
    except cpuset.CpuListError:
        return False
