"""What the page says of one decision: an audit entry with what its replay came to, as plain values.

An entry may have been changed by whoever could write to the trail: nothing in it is taken for granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emupin.base import cpuset
from emupin.base.errors import EmupinError
from emupin.base.text import printable
from emupin.engine.explanation import COMPLAINT, PASSED, Tried, explain
from emupin.engine.situation import USES, pins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.engine.explanation import Explanation
    from emupin.engine.situation import Others
    from emupin.trail.replay import Basis, Replayed

MOST_LINES = 200
"""Of a diff or a list of warnings."""


def row(entry: Mapping[str, Any], host: str, where: str, replayed: Replayed) -> dict[str, Any]:
    """The values of `island.COLUMNS` and `island.DETAILS`."""
    shown = {key: text(entry.get(key)) for key in ("time", "name", "uuid", "op", "outcome", "rule", "placement")}
    shown.update({key: text(entry.get(key)) for key in ("before", "after", "reason", "policy", "topology")})
    given = entry.get("facts")
    facts: Mapping[str, Any] = given if isinstance(given, dict) else {}
    return {
        **shown,
        "host": printable(host),
        "replay": replayed.status,
        "where": printable(where),
        "version": text(entry.get("emupin")),
        "warnings": lines(entry.get("warnings")),
        "diff": lines(entry.get("diff")),
        "sha_before": text(entry.get("sha256_before")),
        "sha_after": text(entry.get("sha256_after")),
        "online": text(facts.get("online")),
        "vcpus": _vcpus(replayed.basis),
        "others": others_json(replayed.basis.others) if replayed.basis else {},
        "previous": text(entry.get("previous")),
        "placements": _placements(_explanation(replayed.basis)),
        "differences": [[each.field, _side(each.recorded), _side(each.now)] for each in replayed.differences],
        "why": printable(replayed.why),
    }


def text(value: Any) -> str | None:
    """A text of an entry, on one line; None for what is not there, or is no text."""
    return printable(value) if isinstance(value, str) else None


def lines(value: Any) -> list[str]:
    return [printable(each) for each in value[:MOST_LINES] if isinstance(each, str)] if isinstance(value, list) else []


def _side(value: Any) -> str:
    """One side of a difference."""
    if isinstance(value, list):
        return "; ".join(map(_side, value)) or "none"
    return "none" if value is None else printable(str(value))


def _vcpus(basis: Basis | None) -> list[list[Any]]:
    """The number and the CPUs of each vCPU; those that may run anywhere have none."""
    return [[vcpu, cpuset.text(pin)] for vcpu, pin in pins(basis.guest)] if basis else []


def others_json(others: Others) -> dict[str, dict[str, str]]:
    """CPU lists by UUID, by what for."""
    found: dict[str, dict[str, str]] = {}
    for use in USES:
        by_guest: Mapping[str, frozenset[int]] = getattr(others, use)
        if by_guest:
            found[use] = {printable(owner): cpuset.format(cpus) for owner, cpus in by_guest.items()}
    return found


def _explanation(basis: Basis | None) -> Explanation | None:
    if basis is None:
        return None
    try:
        return explain(basis.guest, basis.policy, basis.host, basis.others)
    except EmupinError:
        return None


def _placements(told: Explanation | None) -> list[dict[str, Any]]:
    """The placements that were tried, and what the checks said."""
    return [_placement(tried) for tried in told.tried] if told else []


def _placement(tried: Tried) -> dict[str, Any]:
    return {
        "text": printable(tried.text),
        "outcome": tried.outcome,
        "cpus": cpuset.text(tried.cpus),
        "problem": printable(tried.problem or ""),
        "passed": [check.name for check in tried.checks if check.outcome == PASSED],
        "complaints": [
            [check.name, check.level, printable(check.complaint or "")]
            for check in tried.checks
            if check.outcome == COMPLAINT
        ],
        "silent": [
            f"{check.name} ({check.outcome})" for check in tried.checks if check.outcome not in (PASSED, COMPLAINT)
        ],
    }
