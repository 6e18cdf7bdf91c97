"""Why a guest's emulator threads go where they go: every rule, placement and check that the decision went through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emupin.base import cpuset
from emupin.engine.checks import CHECKS
from emupin.engine.confinement import DEFAULT
from emupin.engine.marks import NO_CPUS, Mark, marks
from emupin.engine.placements import expand
from emupin.engine.plan import NOBODY, Plan, outcomes, plan
from emupin.engine.situation import Others, Situation, pins
from emupin.guest.domain import OTHER_DRIVERS
from emupin.policy.match import mismatch
from emupin.policy.values import AUTO, OFF

if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.engine.plan import Attempt
    from emupin.guest.domain import Domain
    from emupin.policy.values import Placement, Policy, Rule

    Cpus = frozenset[int]

PASSED, COMPLAINT, NOT_ASKED, NO_HOST = "passed", "complaint", "off", "needs a host"
"""What can come of a check."""

TAKEN, SKIPPED, NOT_TRIED = "taken", "skipped", "not tried"
"""What can come of a placement."""


@dataclass(frozen=True)
class Checked:
    """One check of the CPUs that a placement would have given."""

    name: str
    level: str
    outcome: str
    complaint: str | None = None


@dataclass(frozen=True)
class Tried:
    """One placement."""

    text: str
    from_auto: bool
    """The policy says `auto`, which means this one here."""
    outcome: str
    cpus: Cpus | None = None
    problem: str | None = None
    checks: tuple[Checked, ...] = ()
    """All of them, those behind the first error too."""


@dataclass(frozen=True)
class Explanation:
    """A decision with all that led to it."""

    guest: Domain
    policy: Policy
    host: Host | None
    others: Others
    plan: Plan
    mismatches: tuple[tuple[str, str], ...]
    """The rules ahead of the one that takes the guest, and why each does not."""
    later: int
    """How many rules come after it, and were not asked; all of them for a guest of another driver."""
    tried: tuple[Tried, ...]

    @property
    def before(self) -> Cpus | None:
        return self.guest.emulatorpin

    @property
    def after(self) -> Cpus | None:
        return self.plan.after(self.guest)

    @property
    def marks(self) -> dict[int, Mark]:
        """What a picture of the host shows, none where there is no host. A guest without a pin is nowhere."""
        if self.host is None:
            return {}
        policy = self.policy
        vcpus = {vcpu: pin for vcpu, pin in pins(self.guest) if pin}
        before, after = self.before or NO_CPUS, self.after or NO_CPUS
        return marks(self.host, policy.reserved, policy.pool or NO_CPUS, self.others, vcpus, before, after)


def explain(guest: Domain, policy: Policy, host: Host | None, others: Others = NOBODY) -> Explanation:
    """The decision of `plan`, and how it came about."""
    decided = plan(guest, policy, host, others)
    if guest.kind in OTHER_DRIVERS:
        return Explanation(guest, policy, host, others, decided, (), len(policy.rules), ())
    missed: list[tuple[str, str]] = []
    for rule in policy.rules:
        reason = mismatch(guest, rule.match, host.cores if host else ())
        if reason is None:
            tried = _tried(Situation(guest, policy, rule, host, others), decided)
            later = len(policy.rules) - len(missed) - 1
            return Explanation(guest, policy, host, others, decided, tuple(missed), later, tried)
        missed.append((rule.name, reason))
    return Explanation(guest, policy, host, others, decided, tuple(missed), 0, ())


def _tried(situation: Situation, decided: Plan) -> tuple[Tried, ...]:
    meanings, attempts = _meanings(situation.rule, situation.policy), decided.attempts
    done = [_one(attempt, from_auto, situation) for attempt, (_, from_auto) in zip(attempts, meanings)]
    left = [Tried(placement.text, from_auto, NOT_TRIED) for placement, from_auto in meanings[len(done) :]]
    return (*done, *left)


def _meanings(rule: Rule, policy: Policy) -> list[tuple[Placement, bool]]:
    """The placements that are tried, and whether each is there for an `auto`."""
    return [
        (placement, written.word == AUTO)
        for written in rule.placement
        for placement in expand(rule.replace(placement=(written,)), policy)
    ]


def _one(attempt: Attempt, from_auto: bool, situation: Situation) -> Tried:
    return Tried(
        attempt.placement.text,
        from_auto,
        SKIPPED if attempt.problem else TAKEN,
        attempt.cpus,
        attempt.problem,
        () if attempt.cpus is None else _checked(attempt.cpus, situation.replace(named=attempt.vcpus)),
    )


def _checked(cpus: Cpus, situation: Situation) -> tuple[Checked, ...]:
    checks = []
    for name, level, complaint in outcomes(cpus, situation):
        if level == OFF:
            outcome = NOT_ASKED
        elif situation.host is None and CHECKS[name].needs_host:
            outcome = NO_HOST
        else:
            outcome = COMPLAINT if complaint else PASSED
        checks.append(Checked(name, level, outcome, complaint))
    return tuple(checks)


# -- as JSON ----------------------------------------------------------------------------------------------------------


def to_json(told: Explanation, source: str) -> dict[str, Any]:
    """All of it; CPU lists as text, null where there is no pin."""
    return {
        "source": source,
        "guest": _guest(told.guest, told.host, told.policy.extra_specs()),
        "policy": told.policy.digest,
        "rules": _rules(told),
        "placements": [_placement(each) for each in told.tried],
        "result": result_json(told.guest, told.plan),
        "cpus": [_cpu(cpu, mark) for cpu, mark in sorted(told.marks.items())],
    }


def result_json(guest: Domain, decided: Plan) -> dict[str, Any]:
    return {
        **decided.told(guest),
        "dedicated": decided.dedicated,
        "iothreads": decided.follow_iothreads,
        "vhost_placement": decided.vhost_placement,
        "persist": decided.persist,
        "drift": decided.drift,
        "unstartable": decided.unstartable,
        "failed": decided.failed,
        "on_failure": decided.on_failure,
        "warnings": list(decided.warnings),
    }


def _guest(guest: Domain, host: Host | None, asked: frozenset[str]) -> dict[str, Any]:
    """The guest, of its extra specs only those that a rule looks at: the others are nobody's business."""
    return {
        "name": guest.name,
        "uuid": guest.uuid,
        "vcpus": {str(vcpu): cpuset.text(pin) for vcpu, pin in pins(guest)},
        "emulatorpin": cpuset.text(guest.emulatorpin),
        "iothreads": {str(number): cpuset.text(guest.iothreadpins.get(number)) for number in guest.iothreads},
        "realtime": cpuset.format(guest.realtime),
        "interfaces": sorted(guest.interfaces or ()),
        "flavor": guest.flavor,
        "project": guest.project,
        "extra_specs": {name: value for name, value in (guest.extra_specs or {}).items() if name in asked},
        "partition": guest.partition or DEFAULT,
        "within": None if host is None else cpuset.format(host.within(guest.partition)),
    }


def _rules(told: Explanation) -> list[dict[str, Any]]:
    missed = [{"name": name, "outcome": "does not match", "reason": reason} for name, reason in told.mismatches]
    rest = told.policy.rules[len(missed) :]
    taken = [] if told.plan.rule is None else ["takes the guest"]
    outcomes_of_rest = [*taken, *["not asked"] * told.later]
    return missed + [
        {"name": rule.name, "outcome": outcome, "reason": None} for rule, outcome in zip(rest, outcomes_of_rest)
    ]


def _placement(tried: Tried) -> dict[str, Any]:
    return {
        "placement": tried.text,
        "auto": tried.from_auto,
        "outcome": tried.outcome,
        "cpus": cpuset.text(tried.cpus),
        "problem": tried.problem,
        "checks": [
            {"check": each.name, "level": each.level, "outcome": each.outcome, "complaint": each.complaint}
            for each in tried.checks
        ],
    }


def _cpu(cpu: int, mark: Mark) -> dict[str, Any]:
    return {
        "cpu": cpu,
        "isolated": mark.isolated,
        "reserved": mark.reserved,
        "pool": mark.pool,
        "interrupts": mark.interrupts,
        "vcpus": list(mark.vcpus),
        "foreign_vcpus": list(mark.foreign),
        "foreign_floating": list(mark.floating),
        "foreign_iothreads": list(mark.iothreads),
        "dedicated": list(mark.dedicated),
        "shared": list(mark.shared),
        "before": mark.before,
        "after": mark.after,
    }
