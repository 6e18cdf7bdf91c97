"""The guide's cases, each on several recorded hosts, with the CPUs that a reader of the guide would write down.

The expected sets come from the host's numbering, which its `source` describes, not from a run of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from decisions import GuestXml, decide, host, pins, policy

from emupin.base import cpuset


@dataclass(frozen=True)
class Site:
    """A recorded host, a guest on it as Nova pins one, and what its operator keeps for emulators."""

    host: str
    guest: GuestXml
    pool: str
    reserved: str
    vcpu_0: str
    """The CPU of the guest's vCPU 0."""
    dedicated: str
    """The CPU of the pool that is on vCPU 0's node, on the most idle core, with the lowest number."""
    vcpu_2: str
    """The CPU of vCPU 2."""


SITES = (
    # Siblings are n and n + 64. Node 0 of the pool is 2-3 and 66-67, all of them on idle cores: the lowest.
    Site(
        "xeon-2x32-smt",
        GuestXml(pins(10, 74, 11, 75), "10-11,74-75"),
        "2-3,34-35,66-67,98-99",
        "0-1,64-65",
        vcpu_0="10",
        dedicated="2",
        vcpu_2="11",
    ),
    # Even CPUs are on node 0, odd ones on node 1, where the guest is: 2 is lower and far, 3 is home.
    Site(
        "xeon-2x16-interleaved",
        GuestXml(pins(21, 53, 23, 55), "21,23,53,55"),
        "2-3",
        "0-1,32-33",
        vcpu_0="21",
        dedicated="3",
        vcpu_2="23",
    ),
    # Four nodes, two a socket: node 3 is 48-63 and 112-127. 48 shares a core with the reserved 112, 49 is idle.
    Site(
        "xeon-2x32-snc2",
        GuestXml(pins(50, 114, 51, 115), "50-51,114-115"),
        "16-17,48-49,113",
        "0-1,112",
        vcpu_0="50",
        dedicated="49",
        vcpu_2="51",
    ),
    # One node, no SMT: nothing but the number counts.
    Site(
        "altra-1x80",
        GuestXml(pins(*range(40, 48)), "40-47"),
        "8-9",
        "0-7",
        vcpu_0="40",
        dedicated="8",
        vcpu_2="42",
    ),
    # Siblings are n and n + 128; node 1 is 64-127 and 192-255. Of its pool 70 shares a core with vCPU 0's 198.
    Site(
        "epyc-2x64-smt",
        GuestXml(pins(198, 71, 199, 72), "71-72,198-199"),
        "4,70,80",
        "0-3,128-131",
        vcpu_0="198",
        dedicated="80",
        vcpu_2="199",
    ),
)


@dataclass(frozen=True)
class Case:
    """One case of the guide in our own words."""

    rule: str
    guest: str
    networking: str
    placement: str
    expected: str
    """Which field of the site."""


CASES = (
    Case("DPDK in guest and host: vCPU 0 serves the guest's system, so its pCPU", "dpdk", "ovs-dpdk", "auto", "vcpu_0"),
    Case("DPDK in the guest, kernel on the host: a pCPU without vCPUs", "dpdk", "kernel", "auto", "dedicated"),
    Case("the same, measured to be light: the pCPU of vCPU 0", "dpdk", "kernel", "vcpu:0, auto", "vcpu_0"),
    Case("kernel in the guest: a pCPU of its own on its node", "kernel", "kernel", "auto", "dedicated"),
    Case("the same, whatever the host uses", "kernel", "ovs-dpdk", "auto", "dedicated"),
    Case(
        "kernel in the guest, the other way: the pCPU of a vCPU without network interrupts, which its owner names",
        "kernel",
        "kernel",
        "vcpu:2",
        "vcpu_2",
    ),
)


@pytest.mark.parametrize("site", SITES, ids=[site.host for site in SITES])
@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_case(case: Case, site: Site) -> None:
    rules = policy(
        case.placement,
        f"guest: {case.guest}",
        networking=case.networking,
        pool=site.pool,
        reserved=site.reserved,
    )
    plan = decide(site.guest, rules, host(site.host))
    assert cpuset.format(plan.cpus or ()) == getattr(site, case.expected)
    assert plan.dedicated == (case.expected == "dedicated")


@pytest.mark.parametrize("site", SITES, ids=[site.host for site in SITES])
def test_without_a_free_cpu_a_dpdk_guest_falls_back_to_vcpu_0_and_a_kernel_guest_does_not(site: Site) -> None:
    """Only a DPDK guest leaves vCPU 0 without packets to lose; which vCPU that is elsewhere, only its owner knows."""
    full = {"pool": cpuset.format(site.guest.domain.vcpu_cpus(0) or ()), "networking": "kernel"}
    machine = host(site.host)
    dpdk = decide(site.guest, policy("auto", "guest: dpdk", **full), machine)
    assert cpuset.format(dpdk.cpus or ()) == site.vcpu_0
    assert not dpdk.dedicated
    kernel = decide(site.guest, policy("auto", "guest: kernel", **full), machine)
    assert (kernel.cpus, kernel.failed) == (None, True)


@pytest.mark.parametrize("site", SITES, ids=[site.host for site in SITES])
def test_never_on_the_cpu_of_vcpu_1_or_above(site: Site) -> None:
    """Unless the policy names that vCPU: they poll for packets, and each preemption loses some."""
    machine = host(site.host)
    for vcpu, cpus in site.guest.pins.items():
        for placement in (f'"cpus:{cpus}"', f'"cpus:{site.vcpu_0},{cpus}"'):
            plan = decide(site.guest, policy(placement), machine)
            if vcpu:
                assert plan.failed
                assert plan.attempts[0].problem == f"vCPU {vcpu} runs on CPU {cpus}"
            else:
                assert cpuset.format(plan.cpus or ()) == site.vcpu_0


@pytest.mark.parametrize("site", SITES, ids=[site.host for site in SITES])
def test_the_union_that_nova_writes_is_replaced(site: Site) -> None:
    """It holds vCPU 1 and above: no placement of the table gives it, and it is never taken for a former choice."""
    machine = host(site.host)
    union = site.guest.domain.emulatorpin
    for case in CASES:
        rules = policy(case.placement, f"guest: {case.guest}", networking=case.networking, pool=site.pool)
        assert decide(site.guest, rules, machine).cpus != union


ISOLATED = "xeon-2x16-offline-isolated"
"""CPUs 2-23 and 34-55 are isolated; node 0 has 0-5, 7-15, 32-37 and 40-47."""


@pytest.mark.parametrize(
    ("cpus", "warning"),
    [
        ("0-1", ""),
        ("4", ""),
        ("0,4", "CPU 4 is isolated"),
        ("4-5", "CPUs 4-5 are isolated"),
        ("1,4-5", "CPUs 4-5 are isolated"),
    ],
)
def test_several_isolated_cpus_are_really_the_lowest_one(cpus: str, warning: str) -> None:
    """The kernel does not spread threads there: the operator is told, who may have meant something else."""
    guest = GuestXml(pins(8, 40, 9, 41))
    plan = decide(guest, policy(f'"cpus:{cpus}"'), host(ISOLATED))
    assert cpuset.format(plan.cpus or ()) == cpus
    said = f"cpus:{cpus}: {warning}: threads are not spread over a set, they stay on the lowest CPU"
    assert plan.warnings == ((said,) if warning else ())


def test_one_isolated_cpu_is_what_an_isolated_pool_gives() -> None:
    """Also where CPUs are offline: 6 and its sibling 38 are, so `dedicated` takes 7, whose own sibling is offline."""
    guest = GuestXml(pins(8, 40, 9, 41))
    plan = decide(guest, policy("dedicated", pool="6-7,38"), host(ISOLATED))
    assert (plan.cpus, plan.warnings) == (frozenset((7,)), ())


def test_the_same_numa_node() -> None:
    """A pool on the other socket only: taken with a remark, or not at all where the policy is strict."""
    guest, machine = GuestXml(pins(10, 74, 11, 75)), host("xeon-2x32-smt")
    lenient = decide(guest, policy("dedicated", pool="34-35"), machine)
    assert lenient.cpus == frozenset((34,))
    assert lenient.warnings == ("dedicated: NUMA node 1 is not the guest's, which is 0",)
    strict = decide(guest, policy("dedicated", checks="numa: error", pool="34-35"), machine)
    assert strict.attempts[0].problem == "all 2 CPUs of the pool are on other NUMA nodes"
