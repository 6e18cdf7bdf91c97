"""Guests whose vCPUs libvirt places by numad only as long as nothing of them is pinned."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Domain


def loses_numad(guest: Domain) -> str:
    """What to say of a guest that a pin takes from numad; empty for all others.

    `<numatune><memory placement='auto'/>` stands for `<vcpu placement='auto'>` too, unless something is pinned. libvirt
    writes the latter out when it takes a definition, so only XML that it has not seen yet can be meant.
    """
    pinned = guest.cpuset or guest.vcpupins or guest.emulatorpin or guest.iothreadpins
    if guest.automatic or pinned or not guest.memory.automatic:
        return ""
    return "with a pin libvirt no longer lets numad place the vCPUs: write <vcpu placement='auto'> to keep that"
