"""Many guests at the same time, and guests with awkward names."""

from __future__ import annotations

import pytest

from .expect import FIRST, define, emulator_cpus, outcomes, policy, recorded, start
from .guests import Guest
from .host import PrivateHost

NAMES = (
    "nfv-gäst",
    "-nfv",
    "--help",
    "nfv  two 'single' \"double\" blanks ",
    "nfv-$(touch owned)`touch owned`;\\*%s",
    "nfv-&<>-日本",
)


def test_twenty_guests_at_once(host: PrivateHost) -> None:
    """They all have their vCPUs on the same two CPUs, which a policy must allow."""
    guests = [Guest(f"nfv-{number}") for number in range(20)]
    host.install(policy(checks="{foreign_overlap: 'off'}"))
    for guest in guests:
        define(host, guest)
    starts = [host.begin("virsh", "-q", "start", guest.uuid) for guest in guests]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in starts] == [("", 0)] * len(guests)
    for guest in guests:
        assert emulator_cpus(host, guest) == {FIRST}
        assert recorded(host, guest)
        assert {"prepare", "started"} <= {operation for operation, _ in outcomes(host, guest)}


@pytest.mark.parametrize("name", NAMES)
def test_awkward_name(host: PrivateHost, name: str) -> None:
    guest = Guest(name)
    host.install(policy(name="*"))
    start(host, guest)
    assert emulator_cpus(host, guest) == {FIRST}
    assert recorded(host, guest)
    assert {entry["name"] for entry in host.audit()} == {name}
    assert not host.path("/owned").exists()
    host.virsh("destroy", guest.uuid)
