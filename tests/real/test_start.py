"""A guest's start: every emulator thread on the planned CPUs when `virsh start` returns, and the pin recorded."""

from __future__ import annotations

from .expect import (
    FIRST,
    UNION,
    complaints,
    define,
    emulator_cpus,
    inactive_pin,
    live_pin,
    masks,
    of_kind,
    outcomes,
    policy,
    recorded,
    start,
    tainted,
)
from .guests import CPUS, Guest, draw, write_disk
from .host import PrivateHost, eventually

DISKS = ("/var/lib/libvirt/boot.img", "/var/lib/libvirt/data.img")


def busy_guest(host: PrivateHost, disks: int) -> Guest:
    """With an iothread, a screen, and block workers: those of the second disk belong to the iothread."""
    for disk in DISKS[:disks]:
        write_disk(host.path(disk))
    return Guest("nfv-busy", disks=DISKS[:disks], iothread=True, vnc="/run/nfv-busy.vnc")


def test_without_the_hook_threads_share_the_cpus_of_the_vcpus(each_host: PrivateHost) -> None:
    """What the project is for; and proof that the tests below can fail."""
    guest = Guest("nfv-1")
    start(each_host, guest)
    assert emulator_cpus(each_host, guest) == {UNION}


def test_start_moves_every_emulator_thread_and_no_other(each_host: PrivateHost) -> None:
    guest = busy_guest(each_host, 1)
    each_host.install(policy())
    start(each_host, guest)
    assert emulator_cpus(each_host, guest) == {FIRST}
    kinds = {(thread.kind, thread.allowed) for thread in of_kind(each_host.threads(guest.name), "vcpu")}
    assert kinds == {("vcpu0", frozenset(CPUS[:1])), ("vcpu1", frozenset(CPUS[1:2]))}
    iothreads = of_kind(each_host.threads(guest.name), "iothread")
    assert {thread.allowed for thread in iothreads} == {frozenset(CPUS[1:2])}


def test_threads_born_later_inherit_the_placement(each_host: PrivateHost) -> None:
    guest = busy_guest(each_host, 1)
    each_host.install(policy())
    start(each_host, guest)
    before = {thread.tid for thread in each_host.threads(guest.name)}
    assert draw(each_host.path(guest.vnc)) > 0
    copy = ("--transient-job", "--format", "raw", "--wait", "--pivot")
    each_host.virsh("blockcopy", guest.uuid, "hda", "/var/lib/libvirt/copy.img", *copy)
    emulator = of_kind(each_host.threads(guest.name), "emulator")
    assert {"worker", "vnc_worker"} <= {thread.name for thread in emulator}
    assert {thread.tid for thread in emulator} - before, "no emulator thread was born"
    assert {thread.allowed for thread in emulator} == {FIRST}


def test_workers_of_an_iothread_keep_its_cpus(host: PrivateHost) -> None:
    """Only a cgroup tells them from the emulator's, so only a host with cgroups can promise it."""
    guest = busy_guest(host, 2)
    host.install(policy())
    start(host, guest)
    assert eventually(lambda: len(of_kind(host.threads(guest.name), "iothread")) > 1)
    assert {thread.allowed for thread in of_kind(host.threads(guest.name), "iothread")} == {frozenset(CPUS[1:2])}
    assert emulator_cpus(host, guest) == {FIRST}


def test_guest_without_emulatorpin(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1", emulatorpin=None)
    each_host.install(policy())
    start(each_host, guest)
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert recorded(each_host, guest)


def test_guest_that_no_rule_takes(each_host: PrivateHost) -> None:
    guest = Guest("other")
    each_host.install(policy())
    start(each_host, guest)
    assert emulator_cpus(each_host, guest) == {UNION}
    assert live_pin(each_host, guest) == inactive_pin(each_host, guest)


def test_pin_is_recorded_and_outlives_the_hook(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    each_host.install(policy())
    start(each_host, guest)
    assert recorded(each_host, guest)
    before = masks(each_host, guest)
    each_host.virsh("destroy", guest.uuid)
    each_host.run("rm", "/etc/libvirt/hooks/qemu")
    each_host.restart_libvirtd()
    each_host.virsh("start", "--paused", guest.uuid)
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert sorted(masks(each_host, guest).values()) == sorted(before.values())


def test_transient_guest_has_a_live_pin(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    each_host.install(policy())
    each_host.virsh("create", "/dev/stdin", input=guest.xml)
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert eventually(lambda: live_pin(each_host, guest) == str(CPUS[0]))
    assert not each_host.path("/etc/libvirt/qemu/nfv-1.xml").exists()
    assert each_host.virsh("list", "--persistent", "--all", "--name").stdout.split() == []


def test_second_start_changes_nothing_and_taints_nothing(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    stored = host.path("/etc/libvirt/qemu/nfv-1.xml").read_bytes()
    host.virsh("destroy", guest.uuid)
    before = len(outcomes(host, guest))
    host.virsh("start", guest.uuid)
    assert emulator_cpus(host, guest) == {FIRST}
    assert not tainted(host, guest)
    assert {outcome for _, outcome in outcomes(host, guest)[before:]} <= {"unchanged"}
    assert host.path("/etc/libvirt/qemu/nfv-1.xml").read_bytes() == stored


def test_policy_that_changes_between_starts(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("destroy", guest.uuid)
    host.set_policy(policy(f"cpus:{CPUS[1]}", checks="{vcpu_overlap: warn}"))
    host.virsh("start", guest.uuid)
    assert emulator_cpus(host, guest) == {frozenset(CPUS[1:2])}
    assert recorded(host, guest, CPUS[1])


def test_beside_a_foreign_hook(host: PrivateHost) -> None:
    foreign = "#!/bin/sh\n# somebody else's\nexit 0\n"
    host.write("/etc/libvirt/hooks/qemu", foreign, 0o755)
    host.install(policy())
    guest = Guest("nfv-1")
    start(host, guest)
    assert emulator_cpus(host, guest) == {FIRST}
    assert host.path("/etc/libvirt/hooks/qemu").read_text() == foreign


def test_guest_started_paused(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    define(host, guest)
    host.virsh("start", "--paused", guest.uuid)
    assert emulator_cpus(host, guest) == {FIRST}
    assert recorded(host, guest)


def test_nothing_is_left_behind(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    before = ours(host)
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    assert eventually(lambda: ours(host) == before), ours(host)
    assert [path.name for path in host.path("/etc/libvirt/hooks").iterdir() if path.is_file()] == ["qemu"]
    for folder in ("/run/emupin", "/var/lib/emupin", "/var/log/emupin"):
        assert host.path(folder).stat().st_mode & 0o7777 == 0o700
    assert host.path("/var/log/emupin/audit.jsonl").stat().st_mode & 0o7777 == 0o600


def ours(host: PrivateHost) -> set[str]:
    """Processes that have our name in their command line; what the tests run has it where the checkout's path has."""
    return set(host.run("pgrep", "--full", "--list-full", "emupin", check=False).stdout.splitlines())


def test_guest_that_is_gone_before_its_pin_is_recorded(host: PrivateHost) -> None:
    """Started anew at once: the first recording must neither complain nor touch the second run's."""
    guest = Guest("nfv-1")
    host.install(policy())
    define(host, guest)
    script = 'virsh start "$0" && virsh destroy "$0" && virsh start "$0"'
    host.run("sh", "-c", script, guest.uuid)
    assert emulator_cpus(host, guest) == {FIRST}
    assert recorded(host, guest)
    assert complaints(host) == []
