"""The policy file: its grammar and its checks, from bytes to a `Policy`, or to a complaint about each mistake."""

from __future__ import annotations

from emupin.base.digest import hex_digest
from emupin.base.errors import PolicyError
from emupin.base.frozen import Frozen
from emupin.engine.checks import CHECKS, default_levels, is_or_are, named
from emupin.grammar import syntax
from emupin.grammar.matching import read_match, takes_every_guest
from emupin.grammar.nodes import show
from emupin.grammar.placements import HostPart, read_placements, read_vhost
from emupin.grammar.schema import Complaints, Value
from emupin.policy.values import ERROR, FIX, IOTHREADS, KEEP, OFF, WARN, Match, Policy, Rule


class Behaviour(Frozen):
    """What `defaults` sets and a rule may set anew."""

    on_failure: str = "start"
    persist: bool = True
    follow_iothreads: bool = False
    drift: str = FIX


def compile_policy(data: bytes, source: str) -> Policy:
    """The policy that the file `source` with the content `data` spells. Raises PolicyError for its first mistake."""
    policy, errors = _read(data, source)
    if errors:
        raise errors[0]
    return policy


def problems(data: bytes, source: str) -> list[PolicyError]:
    """Every mistake in the file, by line; of mistakes in the syntax only the first."""
    try:
        return _read(data, source)[1]
    except PolicyError as error:
        return [error]


def _read(data: bytes, source: str) -> tuple[Policy, list[PolicyError]]:
    complaints = Complaints(source)
    parts = Value(syntax.load(data, source), "", complaints).mapping("", required=("version", "rules"))
    if "version" in parts and parts["version"].text() not in ("", "1"):
        parts["version"].complain("is not 1", "this emupin reads `version: 1` only")
    host = _read_host(parts["host"]) if "host" in parts else HostPart()
    defaults = Behaviour()
    if "defaults" in parts:
        defaults = _read_behaviour(parts["defaults"].mapping("defaults"), defaults)
    rules = _read_rules(parts["rules"], host, defaults) if "rules" in parts else ()
    digest = hex_digest(data)
    policy = Policy(digest, host.networking, host.reserved, host.pool, defaults.on_failure, rules)
    return policy, complaints.in_order()


def _read_host(value: Value) -> HostPart:
    parts = value.mapping("host")
    networking = parts["networking"].word(("ovs-dpdk", "kernel")) if "networking" in parts else None
    reserved = parts["reserved"].cpus() if "reserved" in parts else frozenset()
    pool = parts["pool"].cpus() if "pool" in parts else None
    if pool and pool & reserved:
        both = pool & reserved
        parts["pool"].complain(
            f"{named(both)} {is_or_are(both)} in host.reserved too", f"take {named(both)} out of one of the two"
        )
    return HostPart(frozenset(parts), networking, reserved, pool)


def _read_behaviour(parts: dict[str, Value], outer: Behaviour) -> Behaviour:
    on_failure, persist, follow, drift = outer.on_failure, outer.persist, outer.follow_iothreads, outer.drift
    if "on_failure" in parts:
        on_failure = parts["on_failure"].word(("start", "refuse"))
    if "persist" in parts:
        persist = parts["persist"].boolean()
    if "iothreads" in parts:
        follow = parts["iothreads"].word(IOTHREADS) == IOTHREADS[True]
    if "drift" in parts:
        drift = parts["drift"].word((FIX, KEEP))
    return Behaviour(on_failure, persist, follow, drift)


def _read_rules(value: Value, host: HostPart, defaults: Behaviour) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    everything: str | None = None
    lines: dict[str, int] = {}
    for item in value.items():
        if everything:
            hint = f"the rule {show(everything)!r} above takes every guest: move this one before it"
            item.complain("never reached", hint)
            everything = None
        rule = _read_rule(item, host, defaults, lines)
        if rule.name and takes_every_guest(rule.match):
            everything = rule.name
        rules.append(rule)
    return tuple(rules)


def _read_rule(value: Value, host: HostPart, defaults: Behaviour, lines: dict[str, int]) -> Rule:
    """One rule; `lines` collects where each name stands."""
    parts = value.mapping("rules[]", required=("name", "placement"))
    behaviour = _read_behaviour(parts, defaults)
    guest = _read_guest(parts["guest"]) if "guest" in parts else None
    return Rule(
        name=_read_name(parts["name"], lines) if "name" in parts else "",
        match=read_match(parts["match"]) if "match" in parts else Match(),
        placement=read_placements(parts["placement"], host, guest) if "placement" in parts else (),
        checks=_read_checks(parts["checks"]) if "checks" in parts else default_levels(),
        guest=guest,
        on_failure=behaviour.on_failure,
        persist=behaviour.persist,
        follow_iothreads=behaviour.follow_iothreads,
        vhost=read_vhost(parts["vhost"], host) if "vhost" in parts else (),
        drift=behaviour.drift,
    )


def _read_name(value: Value, lines: dict[str, int]) -> str:
    name = value.text()
    if name in lines:
        value.complain(f"{show(name)!r} names the rule on line {lines[name]} too", "give each rule a name of its own")
    lines.setdefault(name, value.node.line)
    return name


def _read_guest(value: Value) -> str:
    return value.word(("dpdk", "kernel"))


def _read_checks(value: Value) -> dict[str, str]:
    levels = default_levels()
    for check, level in value.mapping("rules[].checks").items():
        levels[check] = level.word((ERROR, WARN, OFF))
        if CHECKS[check].fixed and levels[check] in (WARN, OFF):
            level.complain(f"must be error, is {levels[check]!r}", "this check cannot be weakened: remove the key")
    return levels
