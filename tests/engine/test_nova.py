"""What Nova writes for a guest's emulator threads, written as policies and decided on the same guests.

Nova pins by its configuration and flavors; emupin by rules. Where a policy gives another set than Nova, the test's
docstring says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from decisions import ANOTHER, GuestXml, decide, held, host, pins, policy

from emupin.base import cpuset
from emupin.engine.plan import plan
from emupin.engine.situation import vcpu_cpus
from emupin.guest import domainxml
from emupin.guest.domain import Domain
from emupin.policy.values import Policy

XML = Path(__file__).resolve().parents[2] / "fixtures" / "xml"
MACHINE = host("xeon-2x16-interleaved")

NUMA = ("nova-1.1-pinned", "nova-realtime", "nova-realtime-union", "nova-iothreads", "nova-mixed")
"""Recorded guests with a NUMA topology: the ones that Nova pins."""


def recorded(name: str) -> Domain:
    return domainxml.read((XML / f"{name}.xml").read_bytes(), name)


def given(guest: Domain, rules: Policy) -> str:
    return cpuset.format(plan(guest, rules, MACHINE).cpus or ())


def union(guest: Domain) -> str:
    return cpuset.format(vcpu_cpus(guest))


@pytest.mark.parametrize("name", NUMA)
def test_share(name: str) -> None:
    """Nova: `cpu_shared_set` as far as it is online, the same for all guests, whatever their node.

    A policy: `cpus:LIST`, whose off-node CPUs are a warning by default as Nova has them without one. CPUs that are
    offline must be left out of the list: `online` is always an error, since a list that shrinks by itself hides it.
    """
    shared = "2-5,34-37"
    assert given(recorded(name), policy(f'"cpus:{shared}"')) == shared


def test_share_with_an_offline_cpu() -> None:
    """Nova drops it silently; here the next placement counts, which may be the same list without it."""
    guest = GuestXml(pins(8, 40, 9, 41))
    machine = host("xeon-2x16-offline-isolated")
    chosen = decide(guest, policy('"cpus:0-1,6", "cpus:0-1"'), machine)
    assert (chosen.placement, chosen.cpus) == ("cpus:0-1", frozenset((0, 1)))
    assert str(chosen.attempts[0].problem).startswith("the host has no CPU 6 online")


def test_share_and_floating_vcpus() -> None:
    """Nova's shared set is for floating vCPUs and for emulator threads: it is taken, and told of in one sentence."""
    rules = policy('"cpus:2-5,34-37"')
    said = "CPUs 2-5,34-37 may also run vCPUs that are not pinned: vCPUs 0-1 of this guest"
    assert plan(recorded("nova-mixed"), rules, MACHINE).warnings == (f"cpus:2-5,34-37: {said}",)
    others = held(floating=dict.fromkeys(range(2, 6), ANOTHER))
    assert plan(recorded("nova-mixed"), rules, MACHINE, others).warnings == (
        f"cpus:2-5,34-37: {said} and those of guest {ANOTHER}",
    )
    strict = policy('"cpus:2-5,34-37"', checks="floating: error")
    assert plan(recorded("nova-mixed"), strict, MACHINE).attempts[0].problem == said


def test_isolate() -> None:
    """Nova: one more CPU of `cpu_dedicated_set` on guest cell 0's node, accounted for by the scheduler.

    A policy: `dedicated`, from a pool that Nova's sets leave out, since nobody can tell Nova what was taken. The
    node is the same: vCPU 0 is in cell 0. The number may differ where Nova packs by its own order.
    """
    guest = GuestXml(pins(21, 53, 23, 55))
    rules = policy("dedicated", checks="numa: error", pool="2-5")
    assert decide(guest, rules, MACHINE).cpus == frozenset((3,))
    elsewhere = GuestXml(pins(20, 52, 23, 55))
    assert decide(elsewhere, rules, MACHINE).cpus == frozenset((2,))


def test_isolate_for_two_guests() -> None:
    """Nova's claim and ours are both exclusive: the second guest gets another CPU."""
    rules = policy("dedicated", pool="3,5")
    second = decide(GuestXml(pins(25, 57)), rules, MACHINE, held(dedicated={3: ANOTHER}))
    assert second.cpus == frozenset((5,))


@pytest.mark.parametrize("name", ["nova-1.1-pinned", "nova-iothreads", "nova-mixed"])
def test_the_default_union(name: str) -> None:
    """Nova: the CPUs of all vCPUs.

    No placement says "the union", since it is what to get rid of. For one known guest `cpus:LIST` with
    `vcpu_overlap: off` gives it; for guests in general `keep` leaves what Nova wrote, without any rule as well.
    """
    guest = recorded(name)
    assert cpuset.format(guest.emulatorpin or ()) == union(guest)
    assert given(guest, policy(f'"cpus:{union(guest)}"', checks="vcpu_overlap: off")) == union(guest)
    assert plan(guest, policy(f'"cpus:{union(guest)}"'), MACHINE).failed
    kept = plan(guest, policy("keep"), MACHINE)
    assert (kept.cpus, kept.failed) == (None, False)


@pytest.mark.parametrize(("name", "expected"), [("nova-realtime", "20"), ("nova-realtime-union", "52-53")])
def test_realtime(name: str, expected: str) -> None:
    """Nova: the union of the CPUs of the vCPUs that are not realtime ones (`hw:cpu_realtime_mask`).

    `vcpu:non-realtime` says it for every guest, also where the mask includes vCPU 0. With one such vCPU that is vCPU
    0, and `vcpu:0` says it too.
    """
    guest = recorded(name)
    ordinary = frozenset().union(*(guest.vcpupins[vcpu] for vcpu in range(guest.vcpus) if vcpu not in guest.realtime))
    assert cpuset.format(ordinary) == cpuset.format(guest.emulatorpin or ()) == expected
    assert given(guest, policy('"vcpu:non-realtime"', "match: {realtime: true}")) == expected
    assert given(guest, policy('"vcpu:0"')) == expected.split("-")[0]


def test_realtime_cpus_stay_free_without_vcpu_overlap() -> None:
    """Its own check: a fifo vCPU never yields, so an emulator thread there would never run."""
    guest = recorded("nova-realtime-union")
    failed = plan(guest, policy('"cpus:53-54"', checks="vcpu_overlap: off"), MACHINE)
    assert failed.attempts[0].problem == "vCPU 2, a realtime one, runs on CPU 54"


def test_the_pcpu_of_vcpu_0_is_what_nova_cannot_say() -> None:
    assert [given(recorded(name), policy('"vcpu:0"')) for name in NUMA[:4]] == ["12", "20", "52", "6"]


def test_guests_that_nova_does_not_pin() -> None:
    """Without a NUMA topology Nova writes no pin; `vcpu:0` then has no CPU to name, and `pool` has."""
    guest = recorded("nova-floating-no-cputune")
    rules = policy('"vcpu:0", pool', checks="vcpu_overlap: off", pool="2-3")
    assert guest.emulatorpin is None
    assert given(guest, rules) in ("2-3", "")
