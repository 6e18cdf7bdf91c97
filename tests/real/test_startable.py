"""Pins that libvirt cannot start a guest with: in its definition, in a saved image, and in a partition that shrinks."""

from __future__ import annotations

from emupin.base import cpuset

from .expect import (
    define,
    emulator_cpus,
    emulatorpin,
    inactive_pin,
    live_pin,
    outcomes,
    pin_on_disk,
    policy,
    recorded,
    start,
)
from .guests import CPUS, Guest
from .host import CHECKOUT, PrivateHost, eventually
from .test_confined import EMUPIN, narrow, one_vcpu

ABSENT = CPUS[-1] + 1000
"""A CPU that no machine of the tests has."""


def test_a_definition_with_an_impossible_pin_starts_the_second_time(host: PrivateHost) -> None:
    host.install(policy())
    guest = Guest("nfv-1", emulatorpin=str(ABSENT))
    define(host, guest)
    assert host.virsh("start", guest.uuid, check=False).returncode
    assert eventually(lambda: inactive_pin(host, guest) == str(CPUS[0])), host.audit()
    host.virsh("start", guest.uuid)
    assert emulator_cpus(host, guest) == {frozenset(CPUS[:1])}
    (prepare, *_) = host.audit()
    assert f"libvirt cannot start the guest with the <emulatorpin> of its definition: CPU {ABSENT}" in str(prepare)
    assert ("record", "recorded") in outcomes(host, guest)


def test_under_refuse_the_error_that_reaches_virsh_names_the_cure(host: PrivateHost) -> None:
    host.install(policy(on_failure="refuse"))
    guest = Guest("nfv-1", emulatorpin=str(ABSENT))
    define(host, guest)
    error = host.virsh("start", guest.uuid, check=False).stderr
    assert f"CPU {ABSENT} is not online; the definition is corrected when this start has failed" in error
    assert eventually(lambda: inactive_pin(host, guest) == str(CPUS[0])), host.audit()
    host.virsh("start", guest.uuid)


def test_apply_takes_an_impossible_pin_out_of_a_guest_that_has_no_place_now(host: PrivateHost) -> None:
    """Without its pin the guest starts, as it would without emupin."""
    host.install(policy(f"cpus:{ABSENT}"))
    guest = Guest("nfv-1", emulatorpin=str(ABSENT))
    define(host, guest)
    assert host.run(EMUPIN, "apply", "--all", check=False).returncode == 1
    done = host.run(EMUPIN, "apply", "--all", "--yes")
    assert "nfv-1: fixed, shut off\n  - rule " in done.stdout
    assert pin_on_disk(host, guest) is None
    assert outcomes(host, guest) == [("apply", "rewritten"), ("record", "recorded")]
    assert host.run(EMUPIN, "apply", "--all").returncode == 0
    host.virsh("start", guest.uuid)


def test_the_partition_is_narrowed_between_two_starts(host: PrivateHost) -> None:
    """`cpus:1` is recorded, then CPU 1 leaves the partition: the next start fails, the one after it does not."""
    first, second = CPUS[:2]
    host.install(policy(f'cpus:{second}", "vcpu:0'))
    narrow(host, first, second)
    guest = one_vcpu("nfv-1")
    start(host, guest)
    assert recorded(host, guest, second)
    host.virsh("destroy", guest.uuid)
    eventually(lambda: not host.path("/sys/fs/cgroup/cpuset/machine/qemu-1-nfv-1.libvirt-qemu").exists())
    narrow(host, first)
    assert f"CPU {second} is outside the guest's cgroup" in host.run(EMUPIN, "explain", guest.name).stdout
    assert host.virsh("start", guest.uuid, check=False).returncode
    assert eventually(lambda: inactive_pin(host, guest) == str(first)), host.audit()
    host.virsh("start", guest.uuid)
    assert emulator_cpus(host, guest) == {frozenset((first,))}


def with_iothread(host: PrivateHost) -> Guest:
    """A guest that was recorded on the second CPU, where its iothread went with it, and is shut off now."""
    first, second = CPUS[:2]
    host.install(policy(f'cpus:{second}", "vcpu:0').replace("persist: true", "persist: true, iothreads: follow"))
    narrow(host, first, second)
    guest = Guest("nfv-1", vcpus=1, emulatorpin=None)
    host.virsh("define", "/dev/stdin", input=guest.xml.replace("</vcpu>", "</vcpu><iothreads>1</iothreads>"))
    host.virsh("start", guest.uuid)
    assert recorded(host, guest, second)
    assert f"<iothreadpin iothread='1' cpuset='{second}'/>" in host.virsh("dumpxml", "--inactive", guest.uuid).stdout
    host.virsh("destroy", guest.uuid)
    eventually(lambda: not host.path("/sys/fs/cgroup/cpuset/machine/qemu-1-nfv-1.libvirt-qemu").exists())
    return guest


def test_the_pins_of_iothreads_go_back_where_they_follow_no_more(host: PrivateHost) -> None:
    first = CPUS[0]
    guest = with_iothread(host)
    host.set_policy(policy(f"cpus:{first}"))
    host.run(EMUPIN, "apply", "--all", "--yes")
    assert pin_on_disk(host, guest) == str(first)
    assert "<iothreadpin" not in host.path("/etc/libvirt/qemu/nfv-1.xml").read_text()
    narrow(host, first)
    host.virsh("start", guest.uuid)


def test_an_impossible_pin_of_an_iothread_is_corrected_like_the_emulators(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    guest = with_iothread(host)
    host.virsh("emulatorpin", guest.uuid, str(first), "--config")
    narrow(host, first)
    assert host.virsh("start", guest.uuid, check=False).returncode
    assert f"with the <iothreadpin> of iothread1 of its definition: CPU {second} is outside" in str(host.audit()[-1])
    assert eventually(lambda: f"iothread='1' cpuset='{first}'" in host.path("/etc/libvirt/qemu/nfv-1.xml").read_text())
    host.virsh("start", guest.uuid)


def test_nobody_corrects_a_definition_for_the_xml_that_a_guest_is_created_from(host: PrivateHost) -> None:
    host.install(policy())
    guest = Guest("nfv-1", emulatorpin=None)
    define(host, guest)
    bad = guest.xml.replace("</cputune>", f"<emulatorpin cpuset='{ABSENT}'/></cputune>")
    assert host.virsh("create", "/dev/stdin", input=bad, check=False).returncode
    assert "correct it where the guest's XML comes from" in str(host.audit()[-1])
    assert not host.path("/run/emupin/impossible").exists()
    assert inactive_pin(host, guest) is None


def test_an_image_with_an_impossible_pin_is_restored_where_no_placement_passes(host: PrivateHost) -> None:
    host.install(policy(name="other-*"))
    narrow(host, *CPUS[:2])
    guest = one_vcpu("nfv-1")
    start(host, guest)
    host.virsh("emulatorpin", guest.uuid, str(CPUS[1]), "--live")
    host.virsh("save", guest.uuid, "/var/lib/image")
    narrow(host, CPUS[0])
    host.set_policy(policy(f"cpus:{CPUS[1]}"))
    host.virsh("restore", "/var/lib/image")
    assert emulatorpin(host.virsh("dumpxml", guest.uuid).stdout) is None
    assert ("restore", "rewritten") in outcomes(host, guest)


def test_a_definition_with_swapped_vcpus_gets_its_own_pin(host: PrivateHost) -> None:
    """The running guest has vCPU 0 on the first CPU; after the next boot vCPU 1 is there."""
    first, second = CPUS[:2]
    host.install(policy())
    guest = Guest("nfv-1")
    start(host, guest)
    assert recorded(host, guest)
    swapped = guest.xml.replace(f"vcpu='0' cpuset='{first}'", f"vcpu='0' cpuset='{second}'")
    swapped = swapped.replace(f"vcpu='1' cpuset='{second}'", f"vcpu='1' cpuset='{first}'")
    host.virsh("define", "/dev/stdin", input=swapped)
    status = host.run(EMUPIN, "status", guest.name, check=False)
    assert status.returncode == 1
    assert "persistent XML" in status.stdout
    host.run(EMUPIN, "apply", "--yes", guest.name)
    assert (pin_on_disk(host, guest), emulator_cpus(host, guest)) == (str(second), {frozenset((first,))})
    assert host.run(EMUPIN, "status", guest.name).returncode == 0
    assert host.run(EMUPIN, "rewrite", "--check", f"/etc/libvirt/qemu/{guest.name}.xml").returncode == 0
    host.restart_libvirtd()
    host.virsh("destroy", guest.uuid)
    host.virsh("start", guest.uuid)
    assert emulator_cpus(host, guest) == {frozenset((second,))}


# -- taken back -------------------------------------------------------------------------------------------------------


def test_undo_puts_back_what_stood_there_before(host: PrivateHost) -> None:
    host.install(policy(checks="{foreign_overlap: off}"))
    with_pin, without = Guest("nfv-1"), Guest("nfv-2", emulatorpin=None)
    for guest in (with_pin, without):
        start(host, guest)
        assert recorded(host, guest)
    stored = host.path("/etc/libvirt/qemu/nfv-2.xml").read_text()
    assert host.run(EMUPIN, "apply", "--undo", "--all", check=False).returncode == 1
    assert [emulator_cpus(host, guest) for guest in (with_pin, without)] == [{frozenset(CPUS[:1])}] * 2
    done = host.run(EMUPIN, "apply", "--undo", "--all", "--yes")
    assert f"persistent XML: <emulatorpin> {CPUS[0]} -> none" in done.stdout
    assert pin_on_disk(host, with_pin) == live_pin(host, with_pin) == cpuset.format(CPUS[:2])
    assert pin_on_disk(host, without) is None
    assert [emulator_cpus(host, guest) for guest in (with_pin, without)] == [{frozenset(CPUS)}] * 2
    assert host.path("/etc/libvirt/qemu/nfv-2.xml").read_text() == "".join(
        line for line in stored.splitlines(keepends=True) if "<emulatorpin" not in line
    )
    assert ("undo", "recorded") in outcomes(host, with_pin)
    assert "nothing to take back" in host.run(EMUPIN, "apply", "--undo", "--all", "--yes").stderr


def test_undo_leaves_what_was_changed_since(host: PrivateHost) -> None:
    host.install(policy())
    guest = Guest("nfv-1")
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("emulatorpin", guest.uuid, str(CPUS[1]), "--config")
    host.run(EMUPIN, "apply", "--undo", "--yes", guest.name)
    assert (inactive_pin(host, guest), live_pin(host, guest)) == (str(CPUS[1]), cpuset.format(CPUS[:2]))


def test_undo_takes_back_again_what_a_snapshot_has_brought(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f"cpus:{second}"))
    host.run("qemu-img", "create", "-f", "qcow2", "/var/lib/disk.qcow2", "1M")
    host.run("chmod", "777", "/var/lib", "/var/lib/disk.qcow2")
    guest = Guest("nfv-1", vcpus=1, emulatorpin=str(first), disks=("/var/lib/disk.qcow2",))
    host.virsh("define", "/dev/stdin", input=guest.xml.replace("type='raw'", "type='qcow2'"))
    host.virsh("start", guest.uuid)
    assert recorded(host, guest, second)
    host.virsh("snapshot-create-as", guest.uuid, "s1")
    host.run("rm", "/etc/emupin/policy.yaml")
    undo = EMUPIN, "apply", "--undo", "--all", "--yes"
    assert "libvirt keeps a snapshot of it" in host.run(*undo).stderr
    assert "nothing to take back" in host.run(*undo).stderr
    for _ in range(2):
        host.virsh("snapshot-revert", guest.uuid, "s1")
        assert (live_pin(host, guest), inactive_pin(host, guest)) == (str(second), str(second))
        host.run(*undo)
        assert (live_pin(host, guest), inactive_pin(host, guest)) == (str(first), str(first))
        assert emulator_cpus(host, guest) == {frozenset((first,))}


def test_undo_tells_of_a_managed_save_and_how_to_change_it(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f"cpus:{second}"))
    guest = Guest("nfv-1", vcpus=1, emulatorpin=str(first))
    start(host, guest)
    assert recorded(host, guest, second)
    host.run("chmod", "-R", "777", "/var/lib/libvirt/qemu")
    host.virsh("managedsave", guest.uuid)
    done = host.run("sh", str(CHECKOUT / "install.sh"), "--uninstall", "--undo")
    assert "nfv-1: libvirt keeps a managed save of it" in done.stderr
    saved = host.virsh("managedsave-dumpxml", guest.uuid, "--security-info").stdout
    ours, former = (f"<emulatorpin cpuset='{cpu}'/>" for cpu in (second, first))
    assert ours in saved
    host.virsh("managedsave-define", guest.uuid, "/dev/stdin", input=saved.replace(ours, former))
    host.virsh("start", guest.uuid)
    assert (live_pin(host, guest), emulator_cpus(host, guest)) == (str(first), {frozenset((first,))})


def test_uninstalling_with_undo_leaves_no_pin_behind(host: PrivateHost) -> None:
    host.install(policy())
    guest = Guest("nfv-1", emulatorpin=None)
    start(host, guest)
    assert recorded(host, guest)
    host.run("sh", str(CHECKOUT / "install.sh"), "--uninstall", "--undo")
    assert inactive_pin(host, guest) is None


def test_a_pin_that_has_become_impossible_gives_way_to_the_operators(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f"cpus:{second}"))
    narrow(host, first, second)
    guest = Guest("nfv-1", vcpus=1, emulatorpin=str(first))
    start(host, guest)
    assert recorded(host, guest, second)
    host.virsh("destroy", guest.uuid)
    eventually(lambda: not list(host.path("/sys/fs/cgroup/cpuset/machine").glob("qemu-*")))
    narrow(host, first)
    assert host.virsh("start", guest.uuid, check=False).returncode
    assert eventually(lambda: inactive_pin(host, guest) == str(first)), host.audit()
    assert host.audit()[-1]["diff"] == [f"-persistent emulator: {second}", f"+persistent emulator: {first}"]


def test_undo_puts_back_an_impossible_pin_once_it_is_possible(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f"cpus:{second}"))
    guest = Guest("nfv-1", vcpus=1, emulatorpin=str(second))
    define(host, guest)
    narrow(host, first)
    assert host.virsh("start", guest.uuid, check=False).returncode
    assert eventually(lambda: inactive_pin(host, guest) is None), host.audit()
    undo = EMUPIN, "apply", "--undo", "--all", "--yes"
    assert "nothing to take back" in host.run(*undo).stderr
    narrow(host, first, second)
    assert f"persistent XML: <emulatorpin> none -> {second}" in host.run(*undo).stdout
    assert inactive_pin(host, guest) == str(second)
