"""What an entry of the audit trail was decided from, as far as it is kept: the policy, the host with its CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emupin.base import cpuset
from emupin.base.cpuset import CpuListError
from emupin.base.errors import EmupinError
from emupin.engine.marks import NO_CPUS, Mark, marks
from emupin.engine.situation import pins
from emupin.trail import recorded

if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.trail.archive import Archive, KeptPolicy

    Cpus = frozenset[int]


@dataclass(frozen=True)
class Context:
    """What was found; the remarks tell of the rest."""

    policy: KeptPolicy | None
    host: Host | None
    marks: Mapping[int, Mark]
    remarks: tuple[str, ...]


def find(entry: Mapping[str, Any], archive: Archive) -> Context:
    """What `archive` has of `entry`'s policy and host; nothing is missed that the entry does not name."""
    remarks: list[str] = []
    policy = host = None
    by_cpu: Mapping[int, Mark] = {}
    try:
        policy = archive.policy(entry["policy"]) if entry.get("policy") else None
    except EmupinError as error:
        remarks.append(str(error))
    try:
        host = archive.host(entry["topology"]) if entry.get("topology") else None
        host = host and host.replace(interrupts=recorded.interrupts(entry)) if "facts" in entry else host
        by_cpu = _marks(entry, host, policy) if host else {}
    except EmupinError as error:
        remarks.append(str(error))
    return Context(policy, host if by_cpu else None, by_cpu, tuple(remarks))


def _marks(entry: Mapping[str, Any], host: Host, policy: KeptPolicy | None) -> Mapping[int, Mark]:
    """Raises EmupinError where the entry's facts are not what emupin writes."""
    reserved, pool = (policy.policy.reserved, policy.policy.pool or NO_CPUS) if policy else (NO_CPUS, NO_CPUS)
    vcpus = {vcpu: cpus for vcpu, cpus in pins(recorded.guest(entry)) if cpus}
    before, after = (_cpus(entry, key) for key in ("before", "after"))
    return marks(host, reserved, pool, recorded.others(entry), vcpus, before, after)


def _cpus(entry: Mapping[str, Any], key: str) -> Cpus:
    """No CPUs where there is no list. Raises EmupinError."""
    value = entry.get(key)
    try:
        return cpuset.parse(value) if isinstance(value, str) and value else NO_CPUS
    except CpuListError as error:
        raise EmupinError(f"entry: {key}", str(error), "the entry may have been changed") from None
