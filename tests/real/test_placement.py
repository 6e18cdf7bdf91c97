"""What libvirt makes of a guest whose memory numad places: a pin changes how its vCPUs are placed."""

from __future__ import annotations

import pytest

from .expect import define
from .guests import CPUS, Guest
from .host import PrivateHost


class Numad(Guest):
    """Nothing of it is pinned, and numad chooses its memory's nodes."""

    @property
    def xml(self) -> str:
        return super().xml.replace("<os>", "<numatune><memory mode='strict' placement='auto'/></numatune><os>")


@pytest.mark.parametrize(("emulatorpin", "placement"), [(None, "auto"), (str(CPUS[0]), "static")])
def test_a_pin_ends_the_automatic_placement(host: PrivateHost, emulatorpin: str | None, placement: str) -> None:
    guest = Numad("nfv-1", vcpus=0, emulatorpin=emulatorpin)
    define(host, Unpinned(guest))
    assert f"<vcpu placement='{placement}'>" in host.virsh("dumpxml", "--inactive", guest.uuid).stdout


class Unpinned:
    """The guest with two vCPUs."""

    def __init__(self, guest: Guest) -> None:
        self.uuid, self.xml = guest.uuid, guest.xml.replace("<vcpu>0</vcpu>", "<vcpu>2</vcpu>")
