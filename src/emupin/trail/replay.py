"""Decisions of the audit trail made again, from nothing but what was recorded, and compared with those on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emupin import __version__
from emupin.base.errors import EmupinError
from emupin.engine.plan import plan
from emupin.trail import recorded
from emupin.trail.form import FAILED, follows, is_decision, lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.engine.situation import Others
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy
    from emupin.trail.archive import Archive

    Decide = Callable[[Domain, Policy, Host | None, Others], Plan]

SAME, DIFFERENT, NOT_REPLAYABLE, NO_DECISION = "same", "different", "not replayable", "no decision"
"""What can come of an entry. Without a decision are records, gaps, and failures ahead of any decision."""


WORDING = ("reason", "warnings")
"""What is decided in words: another version's may be other words for the same."""


@dataclass(frozen=True)
class Basis:
    """All that was decided from."""

    guest: Domain
    policy: Policy
    host: Host | None
    others: Others


@dataclass(frozen=True)
class Difference:
    """One thing that comes out otherwise now."""

    field: str
    recorded: Any
    now: Any


@dataclass(frozen=True)
class Replayed:
    """What came of one entry."""

    status: str
    differences: tuple[Difference, ...] = ()
    why: str = ""
    """Why it cannot be decided again."""
    basis: Basis | None = None


def replay(entry: Mapping[str, Any], archive: Archive, decide: Decide = plan) -> Replayed:
    """Decide again what `entry` records; `archive` has the policy and the topology that were in force."""
    missing = lacking(entry)
    if missing:
        return Replayed(NOT_REPLAYABLE, why=f"entry: lacks {missing}; {recorded.HINT}")
    if not is_decision(entry):
        return Replayed(NO_DECISION)
    try:
        basis = _basis(entry, archive)
        before = _on_record(entry)
    except EmupinError as error:
        return Replayed(NOT_REPLAYABLE, why=str(error))
    made = decide(basis.guest, basis.policy, basis.host, basis.others)
    now = decided(basis.guest, made)
    compared = [key for key in now if key not in WORDING or entry["emupin"] == __version__]
    differences = [Difference(key, before[key], now[key]) for key in compared if before[key] != now[key]]
    differences += [Difference(*each) for each in follows(entry, now["after"])]
    return Replayed(DIFFERENT if differences else SAME, tuple(differences), basis=basis)


def _basis(entry: Mapping[str, Any], archive: Archive) -> Basis:
    """Raises EmupinError where something is missing or cannot be right."""
    guest, others = recorded.guest(entry), recorded.others(entry)
    policy = archive.policy(entry.get("policy")).policy
    host = archive.host(entry.get("topology")).replace(interrupts=recorded.interrupts(entry))
    return Basis(guest, policy, host, others)


def _on_record(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What was decided then, in the form of `decided`. Raises EmupinError."""
    outcome = entry
    if entry.get("outcome") in FAILED:
        # `after` and `reason` say what came of it; what was to come is told apart.
        outcome = entry.get("decided") or {}
        if not isinstance(outcome, dict) or not outcome.keys() >= {"after", "reason"}:
            raise EmupinError("entry", "does not say what was decided before the failure", recorded.HINT)
    warnings = entry.get("warnings")
    if not isinstance(warnings, list):
        raise EmupinError("entry", "has no list of warnings", recorded.HINT)
    return {
        "rule": entry.get("rule"),
        "placement": entry.get("placement"),
        "before": entry.get("before"),
        "after": outcome.get("after"),
        "vhost": entry.get("vhost"),
        "reason": outcome.get("reason"),
        "warnings": warnings[recorded.problems(entry) :],
    }


def decided(guest: Domain, plan: Plan) -> dict[str, Any]:
    """What the trail says of `plan`; CPU lists as text."""
    return {**plan.told(guest), "warnings": list(plan.warnings)}
