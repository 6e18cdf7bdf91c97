"""A policy tried on guests: which rule takes each, what it would get, and what another policy would change."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from emupin.base import cpuset
from emupin.base.text import printable
from emupin.engine.explanation import result_json
from emupin.engine.plan import plan
from emupin.fleet.batch import Batch
from emupin.fleet.foreign import absent_cpus
from emupin.guest.document import read_file
from emupin.guest.domain import EMULATOR, OTHER_DRIVERS
from emupin.live import lookup
from emupin.policy.values import IOTHREADS

if TYPE_CHECKING:
    from emupin.engine.plan import Plan
    from emupin.fleet.together import Company
    from emupin.guest.domain import Domain
    from emupin.live.facts import Facts
    from emupin.policy.values import Policy

    Cpus = frozenset[int]


@dataclass
class Count:
    """The guests of one rule."""

    guests: int = 0
    changed: int = 0
    troubled: int = 0
    """No placement passes its checks."""


class Tally(Batch):
    """What came of some guests. Of `changed` with two policies: what differs between them."""

    def __init__(self) -> None:
        super().__init__()
        self.rules: dict[str | None, Count] = {}
        """By the rule that takes them; None: no rule does."""
        self.foreign = 0
        """Guests that are pinned to CPUs that the host does not have."""
        self.first_foreign = ""

    def merge(self, other: Tally) -> None:
        self.add_counts(other)
        self.foreign += other.foreign
        self.first_foreign = self.first_foreign or other.first_foreign
        for rule, count in other.rules.items():
            self.of_rule(rule, count.guests, count.changed, count.troubled)

    def of_rule(self, rule: str | None, guests: int, changed: int, troubled: int) -> None:
        count = self.rules.setdefault(rule, Count())
        count.guests += guests
        count.changed += changed
        count.troubled += troubled

    @property
    def troubled(self) -> int:
        return sum(count.troubled for count in self.rules.values())


@dataclass(frozen=True)
class Side:
    """A policy, and the facts that it is tried with: who holds a CPU alone can depend on the policy."""

    policy: Policy
    facts: Facts

    company: Company | None = None
    """Where the guests start together."""

    def decide(self, guest: Domain, path: str) -> Plan:
        if self.company:
            return self.company.decide(guest, path)
        return plan(guest, self.policy, self.facts.host, self.facts.others(guest))


@dataclass(frozen=True)
class Trial:
    """One policy, or one against an older one."""

    new: Side
    old: Side | None
    as_json: bool

    @cached_property
    def sections(self) -> frozenset[str]:
        """What the policies look into."""
        old = self.old.policy.sections() if self.old else frozenset()
        return self.new.policy.sections() | old

    def document(self, path: str, tally: Tally) -> bytes:
        """What to print for the guest in the file `path`. Raises DomainError, OSError."""
        guest = lookup.read_guest(read_file(path), path, self.sections)
        new = self.new.decide(guest, path)
        old = self.old.decide(guest, path) if self.old else None
        changes = is_changed(guest, new) if old is None else differ(guest, old, new)
        tally.changed += changes
        tally.of_rule(new.rule, 1, changes, new.failed)
        if new.rule is not None and (foreign := absent_cpus(guest, self.new.facts)):
            tally.foreign += 1
            tally.first_foreign = tally.first_foreign or f"{path}: {foreign}"
        if old is not None and not changes:
            return b""
        text = self.json(guest, path, old, new) if self.as_json else line(guest, path, old, new)
        return os.fsencode(text + "\n")

    def json(self, guest: Domain, path: str, old: Plan | None, new: Plan) -> str:
        form: dict[str, Any] = {"file": path, "name": guest.name, "uuid": guest.uuid, **result_json(guest, new)}
        beside = {"changed": is_changed(guest, new)} if old is None else {"old": result_json(guest, old)}
        return json.dumps({**form, **beside})


def is_changed(guest: Domain, decided: Plan) -> bool:
    return bool(_moved(guest, decided))


def _moved(guest: Domain, decided: Plan) -> dict[str, Cpus | None]:
    """The pins that the guest is to have and lacks, by whose they are; an `unstartable` plan has them live only."""
    return {} if decided.cpus is None else guest.differing(decided.cpus, decided.follow_iothreads)


def differ(guest: Domain, old: Plan, new: Plan) -> bool:
    """Whether the guest fares differently. That a rule or a placement has another name alone is no difference."""
    return _effect(guest, old) != _effect(guest, new)


def _effect(guest: Domain, decided: Plan) -> tuple[object, ...]:
    """What comes of it; of a guest that waits, what is tried when it has started."""
    if not _places(decided):
        return (decided.failed, decided.failed and decided.on_failure)
    tried = [attempt.placement.text for attempt in decided.attempts if decided.waits]
    workers = decided.vhost, decided.vhost_dedicated
    follow = decided.follow_iothreads and bool(guest.iothreads)
    return tried, decided.cpus, decided.dedicated, workers, decided.persist, follow, decided.drift


def _places(decided: Plan) -> bool:
    return decided.cpus is not None or decided.waits


# -- as a line --------------------------------------------------------------------------------------------------------


def line(guest: Domain, path: str, old: Plan | None, new: Plan) -> str:
    """`FILE: NAME: rule, placement: before -> after`, or what was and what is; one line whatever the names hold."""
    told = _outcome(guest, new) if old is None else f"old: {_outcome(guest, old)} | new: {_outcome(guest, new)}"
    if old is not None:
        told += "".join(f" ({key}: {was} -> {now})" for key, was, now in _side_effects(guest, old, new))
    told += "".join(f" (warning: {warning})" for warning in new.warnings)
    return printable(f"{path}: {guest.name}: {told}")


def _outcome(guest: Domain, decided: Plan) -> str:
    before = "no pin" if guest.emulatorpin is None else cpuset.format(guest.emulatorpin)
    if guest.kind in OTHER_DRIVERS:
        return decided.reason
    if decided.rule is None:
        return f"no rule: {before} stays"
    if decided.failed:
        return f"{decided.reason}; on_failure: {decided.on_failure}"
    if decided.waits:
        return decided.reason
    moved, after = _moved(guest, decided), cpuset.text(decided.cpus)
    what = f"{decided.rule}, {decided.placement}: {before}" + (f" -> {after}" if EMULATOR in moved else " stays")
    iothreads = frozenset(int(key) for key in moved if key != EMULATOR)
    if not iothreads:
        return what
    return f"{what}, iothread{'s' if len(iothreads) > 1 else ''} {cpuset.format(iothreads)} -> {after}"


def _side_effects(guest: Domain, old: Plan, new: Plan) -> list[tuple[str, str, str]]:
    """What the two lines would not show, where both place the guest."""
    if not _places(old) or not _places(new):
        return []
    was, now = _effects(guest, old), _effects(guest, new)
    return [(key, was[key], now[key]) for key in was if was[key] != now[key]]


def _effects(guest: Domain, decided: Plan) -> dict[str, str]:
    effects = {"persist": "true" if decided.persist else "false", "drift": decided.drift}
    if guest.iothreads:
        effects["iothreads"] = IOTHREADS[decided.follow_iothreads]
    effects["vhost"] = cpuset.text(decided.vhost) or "with the emulator threads"
    if decided.vhost_dedicated:
        effects["vhost"] += ", dedicated"
    return effects


def summary(total: Tally, policy: Policy, against: bool) -> list[str]:
    """A line for each rule, in the policy's order, those without a guest too."""
    lines = []
    for rule in [*(rule.name for rule in policy.rules), None]:
        count = total.rules.get(rule, Count())
        name = "no rule" if rule is None else f"rule {rule}"
        verb = ("differs", "differ") if against else ("changes", "change")
        parts = [f"{count.changed:,} {verb[count.changed != 1]}"] if count.changed else []
        if count.troubled:
            parts.append(f"{count.troubled:,} without a placement that passes its checks")
        what = f" ({', '.join(parts)})" if parts else ""
        lines.append(f"{name}: {count.guests:,} guest{'' if count.guests == 1 else 's'}{what}")
    return lines
