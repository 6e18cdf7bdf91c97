"""The decision, as a function of guest, policy and host."""

from __future__ import annotations

from pathlib import Path

import pytest
from decisions import GuestXml, policy
from hosts import Host as HookHost
from hosts import domain_xml

from emupin.engine.host import Host
from emupin.engine.plan import Plan, plan
from emupin.engine.situation import Others
from emupin.grammar.policyfile import compile_policy
from emupin.guest import domainxml, statusxml

HOST = Host(online=frozenset(range(16)))
UNPINNED = "vCPU 0 is not pinned: `dedicated`, `pool` or `cpus:LIST` need no pin"


def decide(placement: str, xml: str = "", checks: str = "{}", host: Host | None = HOST) -> Plan:
    text = f"version: 1\nrules:\n  - name: nfv\n    placement: {placement}\n    checks: {checks}\n"
    guest = domainxml.read((xml or domain_xml()).encode(), "test")
    return plan(guest, compile_policy(text.encode(), "policy.yaml"), host)


@pytest.mark.parametrize(
    ("placement", "cpus"),
    [
        ("vcpu:0", {2}),
        ('"cpus:9-10,12"', {9, 10, 12}),
        ('["cpus:3", "cpus:9"]', {9}),
        ('["vcpu:9", "vcpu:0"]', {2}),
        ('["cpus:99", "vcpu:0"]', {2}),
    ],
)
def test_the_first_placement_that_passes_wins(placement: str, cpus: set[int]) -> None:
    assert decide(placement).cpus == frozenset(cpus)


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        ("cpus:3", "vCPU 1 runs on CPU 3"),
        ("vcpu:9", "the guest has 4 vCPUs, numbered from 0"),
        ('"cpus:2-5"', "vCPU 1 runs on CPU 3"),
        ('"cpus:1,90-91"', "the host has no CPUs 90-91 online (online are 0-15)"),
    ],
)
def test_a_placement_that_fails_a_check_says_why(placement: str, problem: str) -> None:
    decided = decide(placement)
    assert decided.failed
    assert decided.cpus is None
    assert decided.attempts[0].problem == problem
    assert problem in decided.reason


@pytest.mark.parametrize("rule", ["match: {name: other}", "match: {name: 'nfv-*'}"])
@pytest.mark.parametrize(("pin", "told"), [("2-5", True), ("6", False), (None, False)])
def test_a_guest_that_is_left_as_it_is_may_be_on_the_cpu_that_another_has_alone(
    rule: str, pin: str | None, told: bool
) -> None:
    """Whoever recorded that pin: emupin itself, maybe, before the rule was changed."""
    text = f"version: 1\nrules:\n  - name: nfv\n    placement: keep\n    {rule}\n"
    others = Others(dedicated={"0c1d": frozenset((4,))}, names={"0c1d": "nfv-2"})
    guest = domainxml.read(domain_xml(emulatorpin=pin).encode(), "test")
    decided = plan(guest, compile_policy(text.encode(), "policy.yaml"), HOST, others)
    assert (decided.cpus, decided.failed) == (None, False)
    intrusion = "its pin 2-5 is left as it is, and CPU 4 is dedicated to guest nfv-2 (0c1d): change its pin "
    assert any(each.startswith(intrusion) for each in decided.warnings) == told


def test_the_reason_says_what_was_skipped() -> None:
    decided = decide('["cpus:3", "vcpu:0"]')
    assert decided.reason == "rule 'nfv' says vcpu:0 after cpus:3 was skipped: vCPU 1 runs on CPU 3"


def test_keep_leaves_the_guest_as_it_is() -> None:
    decided = decide('["cpus:3", keep]')
    assert (decided.cpus, decided.failed, decided.placement) == (None, False, "keep")


def test_a_check_may_warn_or_be_off() -> None:
    warned = decide('"cpus:3"', checks="{vcpu_overlap: warn}")
    assert (warned.cpus, warned.warnings) == (frozenset({3}), ("cpus:3: vCPU 1 runs on CPU 3",))
    silent = decide('"cpus:3"', checks="{vcpu_overlap: 'off'}")
    assert (silent.cpus, silent.warnings) == (frozenset({3}), ())


def test_without_a_host_what_needs_one_is_not_checked() -> None:
    assert decide('"cpus:99"', host=None).cpus == frozenset({99})


def test_a_floating_vcpu_is_told_of_wherever_it_may_run() -> None:
    floating = domain_xml().replace("    <vcpupin vcpu='2' cpuset='4'/>\n", "")
    said = "CPU 9 may also run vCPUs that are not pinned: vCPU 2 of this guest"
    assert decide('"cpus:9"', floating).warnings == (f"cpus:9: {said}",)
    assert decide('"cpus:9"', floating, "{floating: error}").attempts[0].problem == said
    confined = floating.replace("placement='static'", "placement='static' cpuset='6-8'")
    assert decide('"cpus:9"', confined).warnings == ()
    assert decide('"cpus:7"', confined).warnings == (f"cpus:7: {said.replace('9', '7')}",)


def test_vcpu_0_without_a_pin_gives_nothing() -> None:
    floating = domain_xml().replace("    <vcpupin vcpu='0' cpuset='2'/>\n", "")
    assert decide("vcpu:0", floating).attempts[0].problem == UNPINNED


def test_a_vcpu_that_is_not_plugged_in_counts_with_its_own_pin_only() -> None:
    fewer = domain_xml().replace("<vcpu placement='static'>4<", "<vcpu placement='static' current='1'>4<")
    assert decide('"cpus:3"', fewer).failed
    unpinned = fewer.replace("    <vcpupin vcpu='3' cpuset='5'/>\n", "")
    assert decide('"cpus:5"', unpinned).cpus == frozenset({5})


def test_a_guest_of_one_vcpu_shares_its_cpu() -> None:
    single = domain_xml().replace(">4</vcpu>", ">1</vcpu>")
    assert decide("vcpu:0", single).cpus == frozenset({2})


def test_numad_decides_where_an_automatic_guest_runs() -> None:
    automatic = domain_xml().replace("placement='static'", "placement='auto' cpuset='2-9'").replace("vcpupin", "other")
    assert decide("vcpu:0", automatic).attempts[0].problem == UNPINNED


def test_a_guest_that_numad_places_is_decided_when_it_has_started() -> None:
    """libvirt asks numad after `prepare`: until then a vCPU's CPUs are unknown, which is no failure."""
    guest = GuestXml(vcpus=2, vcpu_attributes="placement='auto'").domain
    machine = Host(frozenset(range(16)), nodes={0: frozenset(range(8)), 1: frozenset(range(8, 16))})
    early = plan(guest, policy('"vcpu:0"', "on_failure: refuse"), machine)
    assert (early.cpus, early.failed) == (None, False)
    assert "numad has not chosen the CPUs of its vCPUs yet: decided when it has started" in early.reason
    assert early.waits
    chosen = guest.replace(numad=frozenset(range(8, 16)))
    assert plan(chosen, policy('"vcpu:3"'), machine).failed
    rules = policy("dedicated", pool="2-3,10-11")
    before = plan(guest, rules, machine).cpus
    assert before == frozenset({2})
    assert plan(chosen, rules, machine, Others(previous=before)).cpus == frozenset({10})
    assert plan(chosen, policy("dedicated", pool="2-3"), machine, Others(previous=before)).cpus == before


def test_what_numad_chose_for_a_running_guest_is_where_its_vcpus_are() -> None:
    automatic = domain_xml().replace("placement='static'", "placement='auto'").replace("vcpupin", "other")
    status = f"<domstatus state='running' pid='1'><numad nodeset='0' cpuset='2-9'/>{automatic}</domstatus>"
    assert statusxml.read(status.encode(), "status").domain.unpinned == frozenset(range(2, 10))
    assert statusxml.read(status.replace("'auto'", "'static'").encode(), "status").domain.unpinned is None


def test_the_hook_takes_over_what_numad_chose(tmp_path: Path) -> None:
    automatic = domain_xml().replace("placement='static'", "placement='auto'").replace("vcpupin", "other")
    node = HookHost(tmp_path)
    node.set_policy("version: 1\nrules:\n  - {name: nfv, placement: 'cpus:9', checks: {vcpu_overlap: error}}\n")
    node.write("run/libvirt/qemu/nfv-1.xml", f"<domstatus pid='0'><numad cpuset='2-8'/>{automatic}</domstatus>")
    node.call("started", automatic)
    (entry,) = node.audit()
    assert entry["facts"]["numad"] == "2-8"  # type: ignore[index]
