"""Every check: what it complains about, in which words, and what its levels make of it."""

from __future__ import annotations

import pytest
from decisions import ANOTHER, THIRD, GuestXml, decide, held, host, pins, policy

from emupin.engine.checks import CHECKS, default_levels
from emupin.engine.host import Host
from emupin.engine.plan import Plan
from emupin.engine.situation import Others, holders
from emupin.policy.values import ERROR, OFF, WARN

SMT = host("xeon-2x32-smt")
OFFLINE = host("xeon-2x16-offline-isolated")
GUEST = GuestXml(pins(10, 11, 12, 13))
REALTIME = GuestXml(pins(10, 11, 12, 13), realtime="2-3")
FLOATING = GuestXml({0: "10", 1: "11"}, vcpus=3)
VCPUS = held(vcpus={20: ANOTHER, 21: THIRD})
DEDICATED = held(dedicated={20: ANOTHER})
FLOATERS = f"vCPUs that are not pinned: those of guests {ANOTHER} and {THIRD}"
IOTHREAD = GuestXml(pins(10, 11, 12, 13), iothreads={1: "10-11,13"})
LOOSE = GuestXml(pins(10, 11), iothreads={1: "", 2: ""})
"""Its iothreads are not pinned."""
NETWORK = SMT.replace(interrupts=frozenset((2, 3, 40)))

COMPLAINTS = [
    ("online", "6", GuestXml(pins(8)), OFFLINE, Others(), "the host has no CPU 6 online"),
    ("online", "4-6,38", GuestXml(pins(8)), OFFLINE, Others(), "the host has no CPUs 6,38 online"),
    ("vcpu_overlap", "11", GUEST, SMT, Others(), "vCPU 1 runs on CPU 11"),
    ("vcpu_overlap", "10-12", GUEST, SMT, Others(), "vCPU 1 runs on CPU 11"),
    ("vcpu_overlap", "75", GuestXml(pins(10, "11,75")), SMT, Others(), "vCPU 1 runs on CPU 75"),
    ("floating", "3", FLOATING, SMT, Others(), "CPU 3 may also run vCPUs that are not pinned: vCPU 2 of this guest"),
    (
        "floating",
        "5-6",
        GuestXml(pins("4", "4-7", 8, "6-7")),
        SMT,
        held(floating={6: ANOTHER, 7: THIRD}),
        f"CPUs 5-6 may also run vCPUs that are not pinned: vCPUs 1,3 of this guest and those of guest {ANOTHER}",
    ),
    ("floating", "6-7", GUEST, SMT, held(floating={6: ANOTHER, 7: THIRD}), f"CPUs 6-7 may also run {FLOATERS}"),
    ("iothread_overlap", "2", IOTHREAD, SMT, Others(), "iothread 1 may run on CPUs 11,13, the CPUs of vCPUs 1,3"),
    ("iothread_overlap", "2", LOOSE, SMT, Others(), "iothreads 1-2 may run on CPU 11, the CPU of vCPU 1"),
    ("interrupts", "2-4", GUEST, NETWORK, Others(), "CPUs 2-3 handle interrupts of network cards"),
    ("interrupts", "3", GUEST, NETWORK, Others(), "CPU 3 handles interrupts of network cards"),
    ("foreign_overlap", "20-21", GUEST, SMT, VCPUS, f"CPU 20 runs vCPUs of guest {ANOTHER}"),
    ("foreign_overlap", "20", GUEST, SMT, DEDICATED, f"CPU 20 is dedicated to the emulator of guest {ANOTHER}"),
    ("realtime", "12", REALTIME, SMT, Others(), "vCPU 2, a realtime one, runs on CPU 12"),
    (
        "realtime",
        "3",
        GuestXml({0: "10"}, vcpus=2, realtime="1"),
        SMT,
        Others(),
        "vCPU 1, a realtime one, runs on any CPU",
    ),
    ("numa", "34", GUEST, SMT, Others(), "NUMA node 1 is not the guest's, which is 0"),
    ("numa", "2,34", GUEST, SMT, Others(), "NUMA node 1 is not the guest's, which is 0"),
    (
        "isolated",
        "1-2",
        GuestXml(pins(8)),
        OFFLINE,
        Others(),
        "CPU 2 is isolated: threads are not spread over a set, they stay on the lowest CPU",
    ),
    ("smt", "74", GUEST, SMT, Others(), "CPU 74 is a sibling of CPU 10, which runs a vCPU"),
    ("smt", "85", GUEST, SMT, VCPUS, "CPU 85 is a sibling of CPU 21, which runs a vCPU"),
]


def checked(cpus: str, guest: GuestXml, machine: Host | None, others: Others, checks: str) -> Plan:
    return decide(guest, policy(f'"cpus:{cpus}"', checks=checks), machine, others)


def only(check: str, level: str) -> str:
    """That check at `level`, and all others off that can be."""
    return ", ".join(f"{name}: {level if name == check else OFF}" for name, each in CHECKS.items() if not each.fixed)


@pytest.mark.parametrize(("check", "cpus", "guest", "machine", "others", "complaint"), COMPLAINTS)
def test_complaint(check: str, cpus: str, guest: GuestXml, machine: Host, others: Others, complaint: str) -> None:
    failed = checked(cpus, guest, machine, others, only(check, ERROR))
    assert failed.failed
    assert str(failed.attempts[0].problem).startswith(complaint)
    assert failed.cpus is None
    if not CHECKS[check].fixed:
        warned = checked(cpus, guest, machine, others, only(check, WARN))
        assert warned.warnings[-1].startswith(f"cpus:{cpus}: {complaint}")
        assert warned.cpus
        assert not checked(cpus, guest, machine, others, only(check, OFF)).warnings


@pytest.mark.parametrize(
    ("cpus", "guest", "machine", "others"),
    [
        ("7", GuestXml(pins(8)), OFFLINE, Others()),
        ("10", GUEST, SMT, Others()),
        ("22", GUEST, SMT, VCPUS),
        ("22", GUEST, SMT, DEDICATED),
        ("11", GuestXml({0: "10", 1: "11"}, vcpu_attributes="current='1'", vcpus=3), SMT, Others()),
        ("0-1", GuestXml(pins(8)), OFFLINE, Others()),
        ("2", GUEST, SMT, held(shared={2: ANOTHER})),
    ],
)
def test_no_complaint(cpus: str, guest: GuestXml, machine: Host, others: Others) -> None:
    checks = "vcpu_overlap: off" if guest.vcpu_attributes else ""
    plan = checked(cpus, guest, machine, others, checks)
    assert (bool(plan.cpus), plan.warnings) == (True, ())


def test_what_needs_a_host_passes_without_one() -> None:
    assert checked("34", GUEST, None, Others(), "numa: error, isolated: error, smt: error").cpus == frozenset((34,))


def test_the_levels_where_a_policy_says_nothing() -> None:
    assert dict(policy("keep").rules[0].checks) == default_levels()


def test_a_node_that_nobody_knows_is_no_complaint() -> None:
    """An unpinned guest has no nodes of its own; a host without NUMA has one."""
    floating = GuestXml(vcpus=1)
    assert decide(floating, policy('"cpus:34"', checks="numa: error"), SMT).cpus == frozenset((34,))
    assert checked("9", GuestXml(pins(8)), Host(frozenset(range(16))), Others(), "numa: error").cpus == frozenset((9,))


@pytest.mark.parametrize("placement", ['"vcpu:0"', "dedicated", "pool"])
def test_reserved_is_for_nobody(placement: str) -> None:
    """Not even for the guest whose vCPU 0 is there; a list that names a reserved CPU is refused with the policy."""
    rules = policy(placement, pool="2", reserved="10")
    reserved = rules.replace(reserved=frozenset((2, 10)))
    plan = decide(GUEST, reserved, SMT)
    assert plan.failed
    assert "reserved" in str(plan.attempts[0].problem)
    assert decide(GUEST, rules.replace(reserved=frozenset()), SMT).cpus


def test_vcpus_that_arrive_on_a_cpu_with_an_emulator_are_told_of() -> None:
    others = held(dedicated={11: ANOTHER}, shared={13: THIRD, 30: THIRD})
    plan = decide(GUEST, policy("keep"), SMT, others)
    assert plan.warnings == (
        f"CPU 11 runs a vCPU of this guest, and has the emulator threads of guest {ANOTHER}",
        f"CPU 13 runs a vCPU of this guest, and has the emulator threads of guest {THIRD}",
    )


def test_guests_are_named_where_names_are_known() -> None:
    taken = {ANOTHER: frozenset((3,)), THIRD: frozenset((4,))}
    both = frozenset((3, 4))
    assert holders(both, {}, taken) == f"guests {ANOTHER} and {THIRD}"
    assert holders(both, {THIRD: "nfv-\x1bc"}, taken) == f"guests {ANOTHER} and nfv-\\x1bc ({THIRD})"
