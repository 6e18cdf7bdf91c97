"""Guests, policies and recorded hosts for tests of the engine, and its decision on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trees import FIXTURES

from emupin.engine import snapshot
from emupin.engine.host import Host
from emupin.engine.plan import NOBODY, Plan, plan
from emupin.engine.situation import USES, Others
from emupin.grammar.policyfile import compile_policy
from emupin.guest import domainxml
from emupin.guest.domain import Domain
from emupin.policy.values import Policy

UUID = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"
ANOTHER, THIRD = "0c1d0000-0000-4000-8000-000000000001", "7e570000-0000-4000-8000-000000000002"


@dataclass(frozen=True)
class GuestXml:
    """A guest, by what a placement looks at."""

    pins: Mapping[int, str] = field(default_factory=dict)
    """CPU list by vCPU; a vCPU that is not in it is not pinned."""
    emulatorpin: str | None = None
    vcpus: int = 0
    """One more than the highest pinned vCPU where it is not given."""
    realtime: str = ""
    """A list of vCPUs."""
    name: str = "nfv-1"
    uuid: str = UUID
    vcpu_attributes: str = ""
    iothreads: Mapping[int, str] = field(default_factory=dict)
    """CPU list by iothread; empty for one that is not pinned."""

    @property
    def text(self) -> str:
        tunes = [f"<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>" for vcpu, cpus in self.pins.items()]
        pinned = {iothread: cpus for iothread, cpus in self.iothreads.items() if cpus}
        tunes += [f"<iothreadpin iothread='{iothread}' cpuset='{cpus}'/>" for iothread, cpus in pinned.items()]
        tunes += [f"<emulatorpin cpuset='{self.emulatorpin}'/>"] if self.emulatorpin else []
        tunes += [f"<vcpusched vcpus='{self.realtime}' scheduler='fifo' priority='1'/>"] if self.realtime else []
        vcpus = self.vcpus or max(self.pins, default=0) + 1
        return (
            f"<domain type='kvm'>\n  <name>{self.name}</name>\n  <uuid>{self.uuid}</uuid>\n"
            f"  <vcpu {self.vcpu_attributes}>{vcpus}</vcpu>\n"
            + (f"  <iothreads>{len(self.iothreads)}</iothreads>\n" if self.iothreads else "")
            + "  <cputune>\n    "
            + "\n    ".join(tunes)
            + "\n  </cputune>\n</domain>\n"
        )

    @property
    def status(self) -> str:
        """libvirt's status file once it runs; there is no process behind it."""
        return f"<domstatus state='running' reason='booted' pid='999999999'>\n{self.text}</domstatus>\n"

    @property
    def domain(self) -> Domain:
        return domainxml.read(self.text.encode(), self.name)


def pins(*cpus: int | str) -> dict[int, str]:
    """vCPU 0 is pinned to the first, and so on."""
    return {vcpu: str(cpu) for vcpu, cpu in enumerate(cpus)}


def host(name: str) -> Host:
    """A recorded one."""
    return snapshot.load(str(FIXTURES / f"{name}.json"))


def held(
    vcpus: Mapping[int, str] | None = None,
    dedicated: Mapping[int, str] | None = None,
    shared: Mapping[int, str] | None = None,
    previous: frozenset[int] | None = None,
    floating: Mapping[int, str] | None = None,
    iothreads: Mapping[int, str] | None = None,
) -> Others:
    """What others have, by CPU: shorter to write where one guest has each."""
    uses = (_by_guest(each or {}) for each in (vcpus, dedicated, shared, floating, iothreads))
    named: dict[str, Any] = dict(zip(USES, uses))
    return Others(**named, previous=previous)


def _by_guest(by_cpu: Mapping[int, str]) -> dict[str, frozenset[int]]:
    return {uuid: frozenset(cpu for cpu in by_cpu if by_cpu[cpu] == uuid) for uuid in by_cpu.values()}


def policy_text(placement: str, rule: str = "", checks: str = "", **host_part: str) -> str:
    """A policy of one rule for every guest."""
    lines = ["version: 1"]
    if host_part:
        lines += ["host:", *(f'  {key}: "{value}"' for key, value in host_part.items())]
    lines += ["rules:", "  - name: nfv", f"    placement: [{placement}]"]
    lines += [f"    {rule}"] if rule else []
    lines += [f"    checks: {{{checks}}}"] if checks else []
    return "\n".join(lines) + "\n"


def policy(placement: str, rule: str = "", checks: str = "", **host_part: str) -> Policy:
    return compile_policy(policy_text(placement, rule, checks, **host_part).encode(), "policy.yaml")


def decide(guest: GuestXml, policy: Policy, host: Host | None, others: Others = NOBODY) -> Plan:
    return plan(guest.domain, policy, host, others)
