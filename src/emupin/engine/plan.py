"""The decision: where a guest's emulator threads go, and why.

`plan` is a pure function of the guest, the policy, the host and the other guests. The hook, the command line and the
audit all call it and differ only in what they do with the Plan.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.checks import CHECKS, is_or_are, named
from emupin.engine.placements import choose, expand
from emupin.engine.situation import Others, Situation, all_of, floating_vcpus, holders, pinned_vcpus, pins
from emupin.engine.startable import risk
from emupin.guest.domain import OTHER_DRIVERS
from emupin.policy.match import find_rule
from emupin.policy.values import DEDICATED, ERROR, FIX, KEEP, OFF, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.policy.values import Placement, Policy

    Cpus = frozenset[int]

NOBODY = Others()

WAITING = "numad has not chosen the CPUs of its vCPUs yet: decided when it has started"
"""Why a guest that a rule takes has neither a placement nor failed."""


class Attempt(Frozen):
    """One placement that was tried."""

    placement: Placement
    cpus: Cpus | None
    """What it would have given; None where it gave nothing."""
    problem: str | None
    """Why it was skipped; None for the one that was taken."""
    warnings: tuple[str, ...] = ()
    vcpus: frozenset[int] = frozenset()
    """The vCPUs that the placement names."""


class Plan(Frozen):
    """Where the emulator threads of one guest go."""

    cpus: Cpus | None
    """None: they stay as they are."""
    reason: str
    """One sentence."""
    rule: str | None = None
    placement: str | None = None
    """The placement that was taken, as the policy writes it."""
    dedicated: bool = False
    """The CPUs are to be this guest's alone."""
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    failed: bool = False
    """A rule took the guest, and none of its placements passed its checks."""
    on_failure: str = "start"
    persist: bool = False
    follow_iothreads: bool = False
    """The iothreads go with the emulator threads."""
    drift: str = FIX
    """What becomes of a guest that has drifted."""
    vhost: Cpus | None = None
    """Where the vhost workers go; None: with the emulator threads. libvirt has no word for it: only live ones move."""
    vhost_placement: str | None = None
    vhost_dedicated: bool = False
    """Likewise `dedicated`."""
    taken: str | None = None
    """Who has CPUs alone that are in the pin of a guest that is not placed, which must not hold then."""
    unstartable: str | None = None
    """Why libvirt could not start the guest with this pin; None where it can."""

    @property
    def decides(self) -> bool:
        """Whether a rule takes the guest, and does not keep it as it is."""
        return self.cpus is not None or self.failed

    @property
    def waits(self) -> bool:
        """Whether a rule takes the guest, and what its placements give is known only when it has started."""
        return self.rule is not None and self.placement is None and not self.failed

    @property
    def alone(self) -> Cpus:
        """What nobody else is to have."""
        own = self.cpus if self.dedicated else None, self.vhost if self.vhost_dedicated else None
        return frozenset().union(*filter(None, own))

    @property
    def pin(self) -> Cpus | None:
        """What a domain XML may say: `cpus`, but for a pin that would keep the guest from its next start."""
        return None if self.unstartable else self.cpus

    def after(self, guest: Domain) -> Cpus | None:
        """Where the emulator threads of `guest` are pinned then; None: they are not."""
        return guest.emulatorpin if self.cpus is None else self.cpus

    def told(self, guest: Domain) -> dict[str, str | None]:
        """What is to become of `guest`, as every JSON of emupin says it; CPU lists as text."""
        return {
            "rule": self.rule,
            "placement": self.placement,
            "before": cpuset.text(guest.emulatorpin),
            "after": cpuset.text(self.after(guest)),
            "vhost": cpuset.text(self.vhost),
            "reason": self.reason,
        }

    def is_in(self, guest: Domain) -> bool:
        """Whether the definition `guest` has the pins of this plan, which has some."""
        return self.pin is not None and not guest.differing(self.pin, self.follow_iothreads)


def plan(guest: Domain, policy: Policy, host: Host | None, others: Others = NOBODY) -> Plan:
    """Decide for `guest`. Without a `host`, what needs one is not checked."""
    if guest.kind in OTHER_DRIVERS:
        reason = f"type {guest.kind!r} is none of the QEMU driver's: the hook is not called for it"
        return Plan(None, reason, on_failure=policy.on_failure)
    warnings = _arrivals(guest, host, others)
    rule = find_rule(guest, policy, host.cores if host else ())
    if rule is None:
        taken = _taken_by_others(guest, others)
        warnings += _intrusion(guest, taken)
        return Plan(None, "no rule matches", warnings=warnings, on_failure=policy.on_failure, taken=taken)
    situation = Situation(guest, policy, rule, host, others)
    warnings += _floating_arrivals(situation)
    attempts: list[Attempt] = []
    for placement in expand(rule, policy):
        attempts.append(_try(placement, situation))
        if attempts[-1].problem is None:
            return _with_vhost(_taken(situation, attempts, warnings), situation)
    skipped = "; ".join(f"{attempt.placement.text}: {attempt.problem}" for attempt in attempts)
    waits = guest.automatic and guest.numad is None
    later = f"; {WAITING}" if waits else ""
    return Plan(
        None,
        f"rule {rule.name!r}: no placement passes its checks ({skipped}){later}",
        rule.name,
        warnings=warnings,
        attempts=tuple(attempts),
        failed=not waits,
        on_failure=rule.on_failure,
        persist=rule.persist,
        drift=rule.drift,
        follow_iothreads=rule.follow_iothreads,
        taken=_taken_by_others(guest, others),
    )


def _taken_by_others(guest: Domain, others: Others) -> str | None:
    """A pin may be what emupin recorded when the guest ran last; who was given those CPUs since has them alone."""
    both = all_of(others.dedicated) & (guest.emulatorpin or frozenset())
    whose = holders(both, others.names, others.dedicated)
    return f"{named(both)} {is_or_are(both)} dedicated to {whose}" if both else None


def _intrusion(guest: Domain, taken: str | None) -> tuple[str, ...]:
    """A guest that is left as it is may have the pin that emupin recorded before its rule was changed."""
    if taken is None:
        return ()
    cure = "change its pin (`virsh emulatorpin`), or take back the recorded one (`emupin apply --undo`)"
    return (f"its pin {cpuset.format(guest.emulatorpin or ())} is left as it is, and {taken}: {cure}",)


def _arrivals(guest: Domain, host: Host | None, others: Others) -> tuple[str, ...]:
    """The guest's vCPUs may come to a CPU that another guest's emulator has: orchestrators do not know of us."""
    taken = all_of(others.shared, others.dedicated)
    both = taken & all_of(pinned_vcpus(guest, host)) if taken else taken
    who = {cpu: holders(frozenset((cpu,)), others.names, others.shared, others.dedicated) for cpu in sorted(both)}
    return tuple(f"CPU {cpu} runs a vCPU of this guest, and has the emulator threads of {who[cpu]}" for cpu in who)


def _floating_arrivals(situation: Situation) -> tuple[str, ...]:
    """The same of vCPUs that float over CPUs of their own, in one sentence, for a guest that a rule takes."""
    others = situation.others
    taken = all_of(others.shared, others.dedicated)
    if not taken or situation.rule.checks["floating"] == OFF:
        return ()
    own = dict(pins(situation.guest))
    both = taken & all_of({vcpu: own[vcpu] or frozenset() for vcpu in floating_vcpus(situation.guest, situation.host)})
    if not both:
        return ()
    who = holders(both, others.names, others.shared, others.dedicated)
    return (f"vCPUs of this guest that are not pinned may run on {named(both)}, with the emulator threads of {who}",)


def _taken(situation: Situation, attempts: list[Attempt], warnings: tuple[str, ...]) -> Plan:
    rule = situation.rule
    *skipped, taken = attempts
    reason = f"rule {rule.name!r} says {taken.placement.text}"
    unstartable = risk(taken.cpus, situation.guest, situation.host) if taken.cpus else None
    if unstartable:
        warnings += (f"only the live threads are moved to {cpuset.format(taken.cpus or ())}: {unstartable}",)
    whose = _taken_by_others(situation.guest, situation.others) if taken.cpus is None else None
    warnings += _intrusion(situation.guest, whose)
    if skipped:
        reason += " after " + "; ".join(
            f"{attempt.placement.text} was skipped: {attempt.problem}" for attempt in skipped
        )
    return Plan(
        cpus=taken.cpus,
        reason=reason,
        rule=rule.name,
        placement=taken.placement.text,
        dedicated=taken.placement.word == DEDICATED,
        warnings=warnings + taken.warnings,
        attempts=tuple(attempts),
        on_failure=rule.on_failure,
        persist=rule.persist,
        drift=rule.drift,
        follow_iothreads=rule.follow_iothreads,
        taken=whose,
        unstartable=unstartable,
    )


def _with_vhost(decided: Plan, situation: Situation) -> Plan:
    """The plan with the place of the vhost workers, where the rule wants them apart and there is one."""
    guest, others = situation.guest, situation.others
    if not situation.rule.vhost or decided.cpus is None:
        return decided
    own, theirs = {guest.uuid or guest.name: decided.cpus}, others.replace(previous=others.vhost)
    # CPUs of the emulator threads are the last that the workers get, and none of theirs where those have them alone.
    beside = [theirs.replace(shared={**others.shared, **own}), theirs]
    if decided.dedicated:
        beside = [theirs.replace(dedicated={**others.dedicated, **own})]
    # Iothreads do not go with them: what is wrong with their place has been said.
    rule = situation.rule.replace(checks={**situation.rule.checks, "iothread_overlap": OFF})
    workers = situation.replace(guest=guest.replace(emulatorpin=None), rule=rule)
    apart = [workers.replace(others=each) for each in beside]
    problems = []
    for placement in rule.vhost:
        attempts = [_try(placement, each) for each in apart]
        attempt = next((each for each in attempts if each.problem is None), attempts[-1])
        if attempt.problem is None:
            return decided.replace(
                vhost=attempt.cpus,
                vhost_placement=placement.text,
                vhost_dedicated=placement.word == DEDICATED,
                warnings=decided.warnings + tuple(f"vhost workers: {warning}" for warning in attempt.warnings),
            )
        problems.append(f"{placement.text}: {attempt.problem}")
    why = f"vhost workers go with the emulator threads: no placement of their own passes ({'; '.join(problems)})"
    return decided.replace(warnings=(*decided.warnings, why))


def _try(placement: Placement, situation: Situation) -> Attempt:
    if placement.word == KEEP:
        return Attempt(placement, None, None)
    choice = choose(placement, situation)
    if choice.cpus is None:
        return Attempt(placement, None, choice.problem)
    warnings = []
    for _, level, complaint in outcomes(choice.cpus, situation.replace(named=choice.vcpus)):
        if complaint and level == ERROR:
            return Attempt(placement, choice.cpus, complaint, vcpus=choice.vcpus)
        if complaint and level == WARN:
            warnings.append(f"{placement.text}: {complaint}")
    return Attempt(placement, choice.cpus, None, tuple(warnings), choice.vcpus)


def outcomes(cpus: Cpus, situation: Situation) -> Iterator[tuple[str, str, str | None]]:
    """Each check's name, its level, and its complaint about `cpus`, if any; one that is off is not asked."""
    for name, check in CHECKS.items():
        level = situation.rule.checks[name]
        yield name, level, None if level == OFF else check.complain(cpus, situation)
