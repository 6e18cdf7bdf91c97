"""Guests from another host: many commands may be shown one, and must not take this host's CPUs for the guest's."""

from __future__ import annotations

from emupin.base import cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.guest.domain import Domain


def absent_cpus(guest: Domain, facts: Host | None) -> str:
    """What to say of a guest that is pinned to CPUs this host does not have: it is from elsewhere. Else empty."""
    if facts is None:
        return ""
    absent = frozenset().union(guest.cpuset or (), *guest.vcpupins.values()) - facts.online
    if not absent:
        return ""
    plural = "s" if len(absent) > 1 else ""
    return (
        f"the guest is pinned to CPU{plural} {cpuset.format(absent)}, which this host does not have online: "
        "give its own host with --host FILE, or skip what needs a host with --host none"
    )
