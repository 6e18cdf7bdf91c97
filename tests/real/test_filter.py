"""Where libvirt takes the hook's XML: restored guests, guests with a managed save, and incoming migrations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cgroups import native_version
from .expect import (
    FIRST,
    UNION,
    complaints,
    emulator_cpus,
    inactive_pin,
    live_pin,
    outcomes,
    policy,
    recorded,
    running,
    start,
    tainted,
)
from .guests import CPUS, Guest, write_disk
from .host import PrivateHost, eventually
from .test_confined import narrow, one_vcpu

DISK = "/var/lib/libvirt/boot.img"
IMAGE = "/var/lib/libvirt/nfv-1.save"
ELSEWHERE = policy(f"cpus:{CPUS[1]}", checks="{vcpu_overlap: off}")


@pytest.fixture
def other_host(tmp_path: Path, host: PrivateHost) -> Iterator[PrivateHost]:
    with PrivateHost(tmp_path / "b", "host-b", native_version()) as other:
        host.link(other)
        yield other
        print(*other.syslog(), sep="\n")


def saved(host: PrivateHost, *save: str) -> Guest:
    """A guest that was saved before the host had a policy."""
    guest = Guest("nfv-1")
    start(host, guest)
    assert emulator_cpus(host, guest) == {UNION}
    host.virsh(save[0], guest.uuid, *save[1:])
    host.install(policy())
    return guest


def migrate(host: PrivateHost, guest: Guest, to: PrivateHost, check: bool = True) -> str:
    """What virsh says on stderr."""
    options = ("--live", "--unsafe", "--persistent", "--undefinesource")
    destination = (f"qemu+tcp://{to.name}/system", "--migrateuri", "tcp://10.77.0.2")
    return host.virsh("migrate", *options, guest.uuid, *destination, check=check).stderr


def test_restore_goes_through_the_filter(each_host: PrivateHost) -> None:
    guest = saved(each_host, "save", IMAGE)
    each_host.virsh("restore", IMAGE)
    assert ("restore", "rewritten") in outcomes(each_host, guest)
    assert tainted(each_host, guest)
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert running(each_host, guest)
    assert recorded(each_host, guest)


def test_managed_save_goes_through_the_filter(each_host: PrivateHost) -> None:
    guest = saved(each_host, "managedsave")
    each_host.virsh("start", guest.uuid)
    assert ("restore", "rewritten") in outcomes(each_host, guest)
    assert live_pin(each_host, guest) == str(CPUS[0])
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert recorded(each_host, guest)


def test_restore_that_changes_nothing_taints_nothing(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("save", guest.uuid, IMAGE)
    host.virsh("restore", IMAGE)
    assert not tainted(host, guest)
    assert complaints(host) == []
    assert emulator_cpus(host, guest) == {FIRST}


def test_restore_follows_the_policy_of_today(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(ELSEWHERE)
    start(host, guest)
    assert recorded(host, guest, CPUS[1])
    host.virsh("save", guest.uuid, IMAGE)
    host.set_policy(policy())
    host.virsh("restore", IMAGE)
    assert live_pin(host, guest) == str(CPUS[0])
    assert emulator_cpus(host, guest) == {FIRST}
    assert recorded(host, guest)


def test_restore_with_the_pin_edited_in_the_image(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("save", guest.uuid, IMAGE)
    xml = host.virsh("save-image-dumpxml", IMAGE).stdout
    pin = f"<emulatorpin cpuset='{CPUS[0]}'/>"
    assert pin in xml
    host.virsh("save-image-define", IMAGE, "/dev/stdin", input=xml.replace(pin, f"<emulatorpin cpuset='{CPUS[1]}'/>"))
    host.virsh("restore", IMAGE)
    assert live_pin(host, guest) == str(CPUS[0])
    assert emulator_cpus(host, guest) == {FIRST}


def test_live_migration_follows_the_policy_of_the_destination(host: PrivateHost, other_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(ELSEWHERE)
    other_host.install(policy())
    start(host, guest)
    assert recorded(host, guest, CPUS[1])
    migrate(host, guest, other_host)
    assert running(other_host, guest)
    assert ("migrate", "rewritten") in outcomes(other_host, guest)
    assert emulator_cpus(other_host, guest) == {FIRST}
    assert recorded(other_host, guest)
    assert host.virsh("list", "--all", "--name").stdout.split() == []


def test_migration_to_a_host_without_emupin_and_back(host: PrivateHost, other_host: PrivateHost) -> None:
    """The pin travels with the guest, and what comes back is right already."""
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    migrate(host, guest, other_host)
    assert emulator_cpus(other_host, guest) == {FIRST}
    back = ("--live", "--unsafe", "--persistent", "--undefinesource", guest.uuid)
    other_host.virsh("migrate", *back, f"qemu+tcp://{host.name}/system", "--migrateuri", "tcp://10.77.0.1")
    assert emulator_cpus(host, guest) == {FIRST}
    assert not tainted(host, guest)
    assert inactive_pin(host, guest) == str(CPUS[0])


def test_a_pin_that_the_destination_cannot_start_with_is_taken_out(host: PrivateHost, other_host: PrivateHost) -> None:
    """No placement passes there, and the guest comes over all the same."""
    guest = one_vcpu("nfv-1")
    host.install(ELSEWHERE)
    narrow(other_host, CPUS[0])
    start(host, guest)
    assert recorded(host, guest, CPUS[1])
    assert migrate(host, guest, other_host, check=False), "without emupin there, the recorded pin costs the migration"
    other_host.install(ELSEWHERE)
    assert migrate(host, guest, other_host) == ""
    assert running(other_host, guest)
    assert live_pin(other_host, guest) is None
    assert ("migrate", "rewritten") in outcomes(other_host, guest)
    other_host.virsh("destroy", guest.uuid)
    assert other_host.virsh("start", guest.uuid, check=False).returncode, "its definition came unfiltered"
    assert eventually(lambda: inactive_pin(other_host, guest) is None)
    other_host.virsh("start", guest.uuid)


def test_refused_migration_leaves_the_guest_where_it_is(host: PrivateHost, other_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    other_host.install(policy("vcpu:7", on_failure="refuse"))
    start(host, guest)
    assert "vcpu:7" in migrate(host, guest, other_host, check=False)
    assert running(host, guest)
    assert other_host.virsh("list", "--all", "--name").stdout.split() == []


def test_incoming_migration_that_fails_gives_back_the_cpus_of_its_vcpus(
    host: PrivateHost, other_host: PrivateHost
) -> None:
    """The destination lacks the guest's disk."""
    guest, successor = Guest("nfv-1", disks=(DISK,)), Guest("nfv-2")
    write_disk(host.path(DISK))
    other_host.install(policy())
    start(host, guest)
    assert DISK in migrate(host, guest, other_host, check=False)
    assert ("migrate", "rewritten") in outcomes(other_host, guest)
    assert running(host, guest)
    start(other_host, successor)
    assert emulator_cpus(other_host, successor) == {FIRST}


def test_incoming_migration_that_is_cancelled_gives_back_its_dedicated_cpu(
    host: PrivateHost, other_host: PrivateHost
) -> None:
    """While its disk, of 8 MiB, is copied at 1 MiB a second."""
    guest, successor = Guest("nfv-1", vcpus=1, disks=(DISK,)), Guest("nfv-2", vcpus=1)
    for each in (host, other_host):
        write_disk(each.path(DISK))
    other_host.install(policy("dedicated").replace("rules:", f'host: {{pool: "{CPUS[1]}"}}\nrules:'))
    start(host, guest)
    slowly = ("--live", "--unsafe", "--persistent", "--copy-storage-all", "--bandwidth", "1", guest.uuid)
    destination = (f"qemu+tcp://{other_host.name}/system", "--migrateuri", "tcp://10.77.0.2")
    migration = host.begin("virsh", "-q", "migrate", *slowly, *destination)
    assert eventually(lambda: ("migrate", "rewritten") in outcomes(other_host, guest), 20)
    assert eventually(lambda: host.virsh("domjobabort", guest.uuid, check=False).returncode == 0, 20)
    assert "abort" in migration.communicate(timeout=60)[1]
    assert running(host, guest)
    start(other_host, successor)
    assert emulator_cpus(other_host, successor) == {frozenset(CPUS[1:2])}
