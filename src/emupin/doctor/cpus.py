"""The policy's CPUs on this host: online, not isolated by mistake, not Nova's."""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.doctor.diagnosis import Diagnosis, ok, problem, skipped, unknown, warning
from emupin.doctor.policy import in_force
from emupin.engine import topology
from emupin.engine.checks import is_or_are, named
from emupin.policy.values import DEDICATED, POOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emupin.doctor.machine import Machine
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

NOVA = (
    "/etc/nova/nova.conf",
    "/etc/nova/nova-compute.conf",
    "/etc/kolla/nova-compute/nova.conf",
    "/var/lib/config-data/puppet-generated/nova_libvirt/etc/nova/nova.conf",
)
"""Nova's own place, Debian's second file, kolla's and TripleO's."""
SNIPPETS = ("/etc/nova/nova.conf.d", "/etc/nova/nova-compute.conf.d")
NO_POLICY = "no policy is in force"
TRUE = ("1", "on", "true", "yes")


def named_sets(policy: Policy) -> dict[str, Cpus]:
    """The sets of CPUs that the policy names for emulator threads, by how it names them."""
    sets = {"host.pool": policy.pool} if policy.pool else {}
    for rule in policy.rules:
        for placement in (*rule.placement, *rule.vhost):
            if placement.cpus:
                sets[f"rule {rule.name}, {placement.text or 'cpus'}"] = placement.cpus
    return sets


def check_online(machine: Machine) -> Iterator[Diagnosis]:
    """Every CPU that the policy names is online, and none is reserved. Raises HostError."""
    policy = in_force(machine)
    if policy is None:
        yield skipped("the policy's CPUs", NO_POLICY)
        return
    online = topology.read(machine.root).online
    faults = [fault for name, cpus in named_sets(policy).items() for fault in _faults(name, cpus, online, policy)]
    yield from faults or [ok("every CPU that the policy names is online and not reserved")]


def _faults(name: str, cpus: Cpus, online: Cpus, policy: Policy) -> Iterator[Diagnosis]:
    if not cpus & online:
        yield problem(f"{name}: no CPU of {cpuset.format(cpus)} is online", "correct the policy, or bring them online")
    elif cpus - online:
        offline = cpus - online
        yield warning(
            f"{name}: {named(offline)} {is_or_are(offline)} not online", "correct the policy, or bring them online"
        )
    if cpus & policy.reserved:
        both = cpus & policy.reserved
        yield problem(
            f"{name}: {named(both)} {is_or_are(both)} in host.reserved too", "take them out of one of the two"
        )


def check_isolated(machine: Machine) -> Iterator[Diagnosis]:
    """No placement puts several threads on several CPUs that nothing balances. Raises HostError."""
    policy = in_force(machine)
    if policy is None:
        yield skipped("isolated CPUs", NO_POLICY)
        return
    isolated = topology.read(machine.root).isolated
    traps = {name: cpus & isolated for name, cpus in _shared_sets(policy).items() if cpus & isolated and len(cpus) > 1}
    for name, cpus in traps.items():
        what = f"{name}: {named(cpus)} {is_or_are(cpus)} isolated: the kernel does not balance load there"
        yield warning(
            what, "in practice every thread stays on the lowest one: name a single CPU, or CPUs that are not isolated"
        )
    if not traps:
        yield ok("no placement spreads threads over isolated CPUs")


def _shared_sets(policy: Policy) -> dict[str, Cpus]:
    """The sets of which a guest gets several CPUs."""
    sets = {name: cpus for name, cpus in named_sets(policy).items() if name != "host.pool"}
    wide = any(
        placement.word == POOL or (placement.word == DEDICATED and (placement.number or 1) > 1)
        for rule in policy.rules
        for placement in rule.placement
    )
    return {**sets, "host.pool": policy.pool} if wide and policy.pool else sets


# -- Nova --------------------------------------------------------------------------------------------------------------


def check_nova(machine: Machine) -> Iterator[Diagnosis]:
    """No CPU that the policy names is one that Nova gives to guests, or switches off. Raises HostError."""
    policy = in_force(machine)
    options, where = _nova_options(machine)
    if not where:
        yield ok("no nova.conf here")
    elif policy is None:
        yield skipped("Nova's CPUs", NO_POLICY)
    else:
        dedicated = _nova_set(options.get("cpu_dedicated_set", ""))
        off = options.get("cpu_power_management", "").lower() in TRUE
        if dedicated is None:
            what = f"Nova's cpu_dedicated_set is not a CPU list: {options['cpu_dedicated_set']}"
            yield unknown(what, f"correct it in {where}")
        else:
            yield from _nova_faults(policy, dedicated, off, where)


def _nova_faults(policy: Policy, dedicated: Cpus, off: bool, where: str) -> Iterator[Diagnosis]:
    taken = {name: cpus & dedicated for name, cpus in named_sets(policy).items() if cpus & dedicated}
    for name, cpus in taken.items():
        loss = "and powers them off while unused (cpu_power_management)" if off else "sooner or later"
        yield problem(
            f"{name}: {named(cpus)} {is_or_are(cpus)} in Nova's cpu_dedicated_set, which gives them to vCPUs {loss}",
            f"take them out of cpu_dedicated_set in {where}, or out of the policy",
        )
    if not taken:
        yield ok("Nova does not give any of the policy's CPUs to guests")


def _nova_options(machine: Machine) -> tuple[Mapping[str, str], str]:
    """The options that matter, and the last file that was read; later files count more, as for Nova itself."""
    options: dict[str, str] = {}
    where = ""
    snippets = [f"{folder}/{name}" for folder in SNIPPETS for name in machine.names(folder) if name.endswith(".conf")]
    for path in (*NOVA, *snippets):
        text = machine.text(path)
        if text is not None:
            where = path
            options.update(_options(text))
    return options, where


def _options(text: str) -> dict[str, str]:
    """A file that oslo.config would not take either says nothing."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=", ":"))
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    wanted = (("compute", "cpu_dedicated_set"), ("libvirt", "cpu_power_management"))
    return {key: value for section, key in wanted if (value := parser.get(section, key, fallback=None))}


def _nova_set(text: str) -> Cpus | None:
    """Nova's CPU lists: `^` takes away from the whole list, wherever it stands, and may be a range; None if invalid."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        wanted = [cpuset.parse(part) for part in parts if not part.startswith("^")]
        unwanted = [cpuset.parse(part[1:]) for part in parts if part.startswith("^")]
    except cpuset.CpuListError:
        return None
    return frozenset().union(*wanted) - frozenset().union(*unwanted)
