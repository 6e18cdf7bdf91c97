"""A policy as the engine uses it: values only, already checked and typed.

The hook loads them from plain tuples (`Policy.from_plain`) without PyYAML; `policyfile` makes them from a file.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Cpus = frozenset[int]

ERROR, WARN, OFF = "error", "warn", "off"
"""The levels of checks."""

AUTO, VCPU, DEDICATED, POOL, CPUS, KEEP = "auto", "vcpu", "dedicated", "pool", "cpus", "keep"
"""The words of placements."""

IOTHREADS = "keep", "follow"
"""What a policy says of iothreads: whether they follow the emulator threads."""

FIX = "fix"
"""What happens to a guest that has drifted; else it is KEPT as it is."""


class Match(Frozen):
    """What a guest must be for a rule to take it. None: the policy says nothing; every other field must hold."""

    name: tuple[str, ...] | None = None
    uuid: tuple[str, ...] | None = None
    flavor: tuple[str, ...] | None = None
    project: tuple[str, ...] | None = None
    interface: tuple[str, ...] | None = None
    pinned: bool | None = None
    realtime: bool | None = None
    extra_specs: Mapping[str, tuple[str, ...]] | None = None
    """Patterns by the name of a Nova flavor's extra spec."""


class Placement(Frozen):
    """One way to choose CPUs: its word, and what stands behind the colon."""

    word: str
    """One of the words above."""
    number: int | None = None
    """The count of `dedicated:N`."""
    cpus: Cpus | None = None
    """The CPUs of `cpus:LIST`."""
    text: str = ""
    """As the policy writes it."""
    vcpus: frozenset[int] | None = None
    """The vCPUs of `vcpu:LIST`; None for `vcpu:non-realtime`."""


class Rule(Frozen):
    """Which guests, and where their emulator threads go."""

    name: str
    match: Match
    placement: tuple[Placement, ...]
    """In order; the first that passes its checks wins."""
    checks: Mapping[str, str]
    """Level by check, every check of the engine present."""
    guest: str | None
    """dpdk or kernel; None where the policy says nothing."""
    on_failure: str
    """start or refuse."""
    persist: bool
    follow_iothreads: bool
    """The iothreads go with the emulator threads; else they stay where they are."""
    vhost: tuple[Placement, ...] = ()
    """Of the vhost workers alone; none: they go with the emulator threads."""
    drift: str = FIX
    """fix or keep: whether `apply --drift`, which the udev rule starts, brings the guest in line."""


class Policy(Frozen):
    """A whole policy file, defaults applied."""

    digest: str
    """SHA-256 of the file's bytes, in hex."""
    networking: str | None
    """ovs-dpdk or kernel; None where the policy says nothing."""
    reserved: Cpus
    pool: Cpus | None
    on_failure: str
    """Of the defaults: what holds before a rule is found."""
    rules: tuple[Rule, ...]

    def sections(self) -> frozenset[str]:
        """The parts of a domain XML that some rule's `match` looks into, of `domainxml.LONG_SECTIONS`."""
        wanted = set()
        for rule in self.rules:
            if rule.match.interface is not None:
                wanted.add("devices")
            if (rule.match.flavor, rule.match.project, rule.match.extra_specs) != (None, None, None):
                wanted.add("metadata")
        return frozenset(wanted)

    def extra_specs(self) -> frozenset[str]:
        """The names of the extra specs that some rule looks at."""
        return frozenset().union(*(rule.match.extra_specs or () for rule in self.rules))

    def to_plain(self) -> tuple[Any, ...]:
        """Tuples, strings, numbers and None only, which `marshal` keeps as they are."""
        return tuple(_plain(value) for value in self.__dict__.values())

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> Policy:
        """The inverse of `to_plain`."""
        digest, networking, reserved, pool, on_failure, rules = plain
        return cls(digest, networking, reserved, pool, on_failure, tuple(_rule(*rule) for rule in rules))


def _plain(value: Any) -> Any:
    if isinstance(value, Frozen):
        return tuple(_plain(field) for field in value.__dict__.values())
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return dict(value) if isinstance(value, dict) else value


def _rule(*plain: Any) -> Rule:
    name, match, placement, checks, guest, on_failure, persist, iothreads, vhost, drift = plain
    tried = _placements(placement), checks, guest
    return Rule(name, Match(*match), *tried, on_failure, persist, iothreads, _placements(vhost), drift)


def _placements(plain: tuple[tuple[Any, ...], ...]) -> tuple[Placement, ...]:
    return tuple(Placement(*one) for one in plain)
