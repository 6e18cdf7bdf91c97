"""Guests from another host: many commands may be shown one, and must not take this host's CPUs for the guest's."""

from __future__ import annotations

from emupin.engine.checks import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.live.facts import Facts


def absent_cpus(guest: Domain, facts: Facts) -> str:
    """What to say of a guest that is pinned to CPUs the host does not have: it is from elsewhere. Else empty."""
    if facts.host is None:
        return ""
    absent = frozenset().union(guest.cpuset or (), *guest.vcpupins.values()) - facts.host.online
    if not absent:
        return ""
    return (
        f"the guest is pinned to {named(absent)}, which {facts.source or 'this host'} does not have online: "
        "use --host with a snapshot of the host it runs on, or skip what needs a host with --host none"
    )
