"""A placement that cannot be: `refuse` stops the start and says why, `start` lets it go and says so, too."""

from __future__ import annotations

import pytest

from .expect import UNION, define, emulator_cpus, inactive_pin, outcomes, policy, start
from .guests import CPUS, Guest
from .host import PrivateHost
from .threads import cpus

IMPOSSIBLE = ("vcpu:7", f"cpus:{CPUS[1]}", "cpus:16000")
"""A vCPU that the guest lacks, the CPU of vCPU 1, a CPU that the host lacks."""


@pytest.mark.parametrize("placement", IMPOSSIBLE)
def test_refuse_stops_the_start_with_a_reason(host: PrivateHost, placement: str) -> None:
    guest = Guest("nfv-1")
    host.install(policy(placement, on_failure="refuse"))
    define(host, guest)
    start = host.virsh("start", guest.uuid, check=False)
    assert start.returncode
    assert placement in start.stderr
    assert host.virsh("domstate", guest.uuid).stdout.strip() == "shut off"
    assert ("prepare", "refused") in outcomes(host, guest)
    assert any("nfv-1" in line and placement in line for line in host.syslog())


@pytest.mark.parametrize("placement", IMPOSSIBLE)
def test_start_goes_on_and_tells(each_host: PrivateHost, placement: str) -> None:
    guest = Guest("nfv-1")
    each_host.install(policy(placement))
    start(each_host, guest)
    assert emulator_cpus(each_host, guest) == {UNION}
    assert "failed" in {outcome for _, outcome in outcomes(each_host, guest)}
    assert sum("nfv-1" in line and placement in line for line in each_host.syslog()) == 1, "at prepare and at started"
    assert any("started: guest nfv-1: the same failure as at prepare" in line for line in each_host.syslog())
    assert cpus(inactive_pin(each_host, guest) or "") == UNION


def test_refused_restore_keeps_the_image(host: PrivateHost) -> None:
    guest, image = Guest("nfv-1"), "/var/lib/libvirt/nfv-1.save"
    start(host, guest)
    host.virsh("save", guest.uuid, image)
    host.install(policy("vcpu:7", on_failure="refuse"))
    restore = host.virsh("restore", image, check=False)
    assert restore.returncode
    assert "vcpu:7" in restore.stderr
    assert host.path(image).exists()
    host.set_policy(policy())
    host.virsh("restore", image)


def test_refuse_never_harms_a_running_guest(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    start(host, guest)
    host.install(policy("vcpu:7", on_failure="refuse"))
    host.restart_libvirtd()
    assert host.virsh("domstate", guest.uuid).stdout.strip() == "running"
    host.virsh("destroy", guest.uuid)
