"""Dedicated CPUs under a real libvirtd: twenty guests and one CPU, and iothreads that go with the emulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .expect import define, emulator_cpus, inactive_pin, live_pin, of_kind, start
from .guests import CPUS, Guest
from .host import PrivateHost, eventually
from .test_confined import EMUPIN

HOME, SPARE = CPUS[:2]
"""Every guest's only vCPU runs on the first; the second is all that the pool has."""

POLICY = f"""\
version: 1
host: {{pool: "{SPARE}"}}
defaults: {{persist: true}}
rules:
  - name: nfv
    match: {{name: "nfv-*"}}
    placement: [dedicated, "vcpu:0"]
    checks: {{foreign_overlap: warn}}
"""
"""All vCPUs here share a CPU, so that a fallback to it always meets another guest's."""


def placed(host: PrivateHost, guest: Guest) -> int:
    """The one CPU that all its emulator threads have."""
    (cpus,) = emulator_cpus(host, guest)
    (cpu,) = cpus
    return cpu


def recorded(host: PrivateHost, guest: Guest, cpu: int) -> bool:
    return eventually(lambda: [live_pin(host, guest), inactive_pin(host, guest)] == [str(cpu)] * 2, 20)


def test_twenty_guests_and_one_cpu(host: PrivateHost) -> None:
    """Started at once, exactly one has the CPU for itself; after each stop the next to start has it."""
    guests = [Guest(f"nfv-{number}", vcpus=1, emulatorpin=str(HOME)) for number in range(20)]
    host.install(POLICY)
    for guest in guests:
        define(host, guest)
    starts = [host.begin("virsh", "-q", "start", guest.uuid) for guest in guests]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in starts] == [("", 0)] * len(guests)
    cpus = {guest.name: placed(host, guest) for guest in guests}
    assert sorted(cpus.values()) == sorted([SPARE] + [HOME] * 19)
    assert all(recorded(host, guest, cpus[guest.name]) for guest in guests)

    (holder,) = (guest for guest in guests if cpus[guest.name] == SPARE)
    losers = [guest for guest in guests if guest is not holder]
    last = {entry["uuid"]: entry for entry in host.audit() if entry["op"] == "started"}
    assert last[holder.uuid]["placement"] == "dedicated"
    for guest in losers:
        assert last[guest.uuid]["placement"] == "vcpu:0"
        reason = last[guest.uuid]["reason"]
        assert "is held, by" in reason
        assert holder.uuid in reason

    for successor in losers[:4]:
        host.virsh("destroy", successor.uuid)
        host.virsh("destroy", holder.uuid)
        host.virsh("start", successor.uuid)
        assert placed(host, successor) == SPARE
        host.virsh("start", holder.uuid)
        assert placed(host, holder) == HOME
        holder = successor


def test_a_restart_gets_its_cpu_back_and_a_lost_ledger_changes_nothing(host: PrivateHost) -> None:
    first, second = (Guest(f"nfv-{number}", vcpus=1, emulatorpin=str(HOME)) for number in (1, 2))
    host.install(POLICY)
    start(host, first)
    assert recorded(host, first, SPARE)
    host.path("/run/emupin/claims").unlink()
    start(host, second)
    assert (placed(host, first), placed(host, second)) == (SPARE, HOME)
    host.virsh("destroy", first.uuid)
    host.virsh("start", first.uuid)
    assert placed(host, first) == SPARE


@pytest.mark.parametrize(("vcpus", "promised"), [(1, SPARE), (2, HOME)], ids=["emulator", "vcpu"])
def test_a_start_that_fails_gives_back_what_it_would_have(host: PrivateHost, vcpus: int, promised: int) -> None:
    """libvirt asks the hook first, then finds that the disk is missing, and releases the guest."""
    fails = Guest("nfv-fails", vcpus=vcpus, emulatorpin=str(HOME), disks=("/var/lib/libvirt/missing.img",))
    starts = Guest("nfv-starts", vcpus=1, emulatorpin=str(HOME))
    host.install(POLICY)
    define(host, fails)
    assert host.virsh("start", fails.uuid, check=False).returncode != 0
    assert [entry["after"] for entry in host.audit()] == [str(promised)]
    start(host, starts)
    assert placed(host, starts) == SPARE


def test_iothreads_follow(host: PrivateHost) -> None:
    """Live and in the definition; without the policy's word they stay where they were."""
    follows = Guest("nfv-follows", vcpus=1, emulatorpin=str(HOME), iothread=True)
    stays = replace(follows, name="nfv-stays", uuid=Guest("other").uuid)
    text = POLICY.replace("persist: true", "persist: true, iothreads: follow").replace(f'pool: "{SPARE}"', "")
    text = text.replace("host: {}\n", "").replace("[dedicated, ", "[")
    host.install(text)
    start(host, follows)
    assert placed(host, follows) == HOME
    assert {thread.allowed for thread in of_kind(host.threads(follows.name), "iothread")} == {frozenset((HOME,))}
    pin = f"<iothreadpin iothread='1' cpuset='{HOME}'/>"
    for flags in ((), ("--inactive",)):
        assert eventually(lambda flags=flags: pin in host.virsh("dumpxml", *flags, follows.uuid).stdout), flags  # type: ignore[misc]
    host.set_policy(text.replace("follow", "keep"))
    start(host, stays)
    assert {thread.allowed for thread in of_kind(host.threads(stays.name), "iothread")} == {frozenset((SPARE,))}


def test_a_guest_without_a_place_leaves_the_cpu_that_its_old_pin_shares_with_the_holder(host: PrivateHost) -> None:
    """libvirt starts it with the pin of its last run, which another guest was given since."""
    host.install(POLICY.replace(', "vcpu:0"', ""))
    former, holder = (Guest(f"nfv-{number}", vcpus=1, emulatorpin=None) for number in (1, 2))
    start(host, former)
    assert recorded(host, former, SPARE)
    host.virsh("destroy", former.uuid)
    start(host, holder)
    assert recorded(host, holder, SPARE)

    host.virsh("start", former.uuid)
    assert (placed(host, holder), emulator_cpus(host, former)) == (SPARE, {frozenset((HOME,))})
    (failed,) = [entry for entry in host.audit() if entry["outcome"] == "failed" and entry["op"] == "started"]
    assert f"its pin is {SPARE}, and CPU {SPARE} is dedicated to guest nfv-2 ({holder.uuid})" in str(failed["reason"])
    assert f"its emulator threads were moved to {HOME}" in str(failed["reason"])
    host.restart_libvirtd()
    assert (placed(host, holder), emulator_cpus(host, former)) == (SPARE, {frozenset((HOME,))})

    host.virsh("destroy", holder.uuid)
    start(host, holder)
    assert host.audit()[-1]["outcome"] != "failed", "libvirt's XML of the other one still says that it is there"
    assert placed(host, holder) == SPARE

    host.virsh("managedsave", former.uuid)
    host.virsh("start", former.uuid)
    assert live_pin(host, former) is None
    assert placed(host, holder) == SPARE
    host.virsh("destroy", former.uuid)
    host.run(EMUPIN, "apply", "--yes", former.name)
    assert inactive_pin(host, former) is None
    host.virsh("destroy", holder.uuid)
    host.virsh("start", former.uuid)
    assert recorded(host, former, SPARE)


@pytest.mark.parametrize("left", ['match: {name: "nfv-2"}', 'match: {name: "nfv-*"}'], ids=["no rule", "keep"])
def test_a_pin_of_emupins_does_not_outlive_its_rule_on_a_cpu_that_another_guest_has_alone(
    host: PrivateHost, left: str
) -> None:
    """Nobody pinned that guest but emupin, before the rule was changed."""
    text = POLICY.replace(', "vcpu:0"', "")
    host.install(text)
    former, holder = (Guest(f"nfv-{number}", vcpus=1, emulatorpin=None) for number in (1, 2))
    start(host, former)
    assert recorded(host, former, SPARE)
    host.virsh("destroy", former.uuid)
    keep = 'rules:\n  - {name: left, match: {name: "nfv-1"}, placement: [keep]}' if "*" in left else "rules:"
    host.set_policy(text.replace('match: {name: "nfv-*"}', left).replace("rules:", keep))
    start(host, holder)
    assert recorded(host, holder, SPARE)

    host.virsh("start", former.uuid)
    assert (placed(host, holder), emulator_cpus(host, former)) == (SPARE, {frozenset((HOME,))})
    assert eventually(lambda: inactive_pin(host, former) is None, 20)
    (entry,) = [entry for entry in host.audit() if entry["name"] == "nfv-1" and entry["op"] == "started"][1:]
    taken = f"its pin is {SPARE}, and CPU {SPARE} is dedicated to guest nfv-2 ({holder.uuid})"
    assert f"{taken}: its emulator threads were moved to {HOME}" in str(entry["warnings"])
    assert host.run(EMUPIN, "audit", "replay").returncode == 0
    host.virsh("destroy", holder.uuid)
    start(host, holder)
    assert host.audit()[-1]["outcome"] != "failed"
    assert (placed(host, holder), emulator_cpus(host, former)) == (SPARE, {frozenset((HOME,))})
    host.virsh("destroy", former.uuid)
    host.virsh("start", former.uuid)
    assert live_pin(host, former) is None
    assert placed(host, holder) == SPARE
