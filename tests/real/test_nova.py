"""A Nova guest's life on real hosts: Nova 2026.1 gives each one an iothread, pinned like the emulator to all its CPUs.

Nova writes the XML anew at every hard reboot, with its own pins: what was recorded is lost, and the hook acts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emupin.base import cpuset

from .cgroups import native_version
from .expect import FIRST, UNION, define, emulator_cpus, of_kind, policy, recorded, running
from .guests import CPUS, Guest
from .host import PrivateHost, eventually

UNION_TEXT = ",".join(map(str, CPUS[:2]))
UNION_SHOWN = cpuset.format(UNION)
"""As libvirt prints it."""


@dataclass(frozen=True)
class NovaGuest(Guest):
    """As Nova has it: the iothread is pinned to the CPUs of all vCPUs."""

    iothread: bool = True

    @property
    def xml(self) -> str:
        own = f"<iothreadpin iothread='1' cpuset='{CPUS[1]}'/>"
        assert own in super().xml
        return super().xml.replace(own, f"<iothreadpin iothread='1' cpuset='{UNION_TEXT}'/>")


@pytest.fixture
def other_host(tmp_path: Path, host: PrivateHost) -> Iterator[PrivateHost]:
    with PrivateHost(tmp_path / "b", "host-b", native_version()) as other:
        host.link(other)
        yield other
        print(*other.syslog(), sep="\n")


def iothread_cpus(host: PrivateHost, guest: Guest) -> set[frozenset[int]]:
    return {thread.allowed for thread in of_kind(host.threads(guest.name), "iothread")}


def migrate(host: PrivateHost, guest: Guest, to: PrivateHost, address: str) -> None:
    options = ("--live", "--unsafe", "--persistent", "--undefinesource", guest.uuid)
    host.virsh("migrate", *options, f"qemu+tcp://{to.name}/system", "--migrateuri", f"tcp://{address}")


@pytest.mark.parametrize(("iothreads", "expected"), [("keep", UNION), ("follow", FIRST)])
def test_the_life_of_a_nova_guest(
    host: PrivateHost, other_host: PrivateHost, iothreads: str, expected: frozenset[int]
) -> None:
    """Spawn, hard reboot, migration there and back: the emulator is with vCPU 0, the iothread where the policy says.

    With `keep` it stays on the CPU of vCPU 1 too, and each decision says so.
    """
    guest, text = NovaGuest("nfv-1"), f"{policy()}    iothreads: {iothreads}\n"
    for each in (host, other_host):
        each.install(text)

    def is_placed(on: PrivateHost) -> None:
        assert running(on, guest)
        assert eventually(lambda: emulator_cpus(on, guest) == {FIRST})
        assert iothread_cpus(on, guest) == {expected}
        assert recorded(on, guest)
        pin = f"<iothreadpin iothread='1' cpuset='{CPUS[0] if iothreads == 'follow' else UNION_SHOWN}'/>"
        assert pin in on.virsh("dumpxml", "--inactive", guest.uuid).stdout
        told = [f"vcpu:0: iothread 1 may run on CPU {CPUS[1]}, the CPU of vCPU 1"] if iothreads == "keep" else []
        decisions = [each for each in on.audit() if each["op"] in ("prepare", "started", "migrate")]
        assert decisions
        assert all(each["warnings"] == told for each in decisions)

    define(host, guest)
    host.virsh("start", guest.uuid)
    is_placed(host)

    host.virsh("destroy", guest.uuid)  # A hard reboot: undefined, and defined anew with Nova's pins.
    host.virsh("undefine", guest.uuid)
    define(host, guest)
    host.virsh("start", guest.uuid)
    is_placed(host)

    migrate(host, guest, other_host, "10.77.0.2")
    is_placed(other_host)
    migrate(other_host, guest, host, "10.77.0.1")
    is_placed(host)
