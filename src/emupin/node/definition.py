"""The plan of a persistent definition on this machine. Nothing is claimed: its next start decides anew."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.engine.definition import Settled, settle
from emupin.engine.startable import obstacle
from emupin.node import former
from emupin.node.claims import Ledger
from emupin.node.decision import plan_beside, read_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.node.former import Pins
    from emupin.policy.values import Policy

    Cpus = frozenset[int]


def settle_definition(root: str, policy: Policy, guest: Domain) -> Settled:
    """What the definition `guest` is to say, with what other guests have now. Raises HostError, DomainError."""
    host = read_host(root, policy, guest)
    _, planned = plan_beside(Ledger.look(root, policy, host), guest, policy, host)
    settled = settle(guest, planned, host)
    if settled.obstacle:
        return _with_former(root, settled, guest, host)
    decides = planned.cpus is not None or planned.failed
    stood = former.once_followed(root, guest) if decides and not planned.follow_iothreads else {}
    return settled.replace(removed=tuple(stood), back=_startable(stood, guest, host))


def _with_former(root: str, settled: Settled, guest: Domain, host: Host) -> Settled:
    """`settled`, and what stood there before emupin's own pins: it goes back where libvirt can start the guest with it.

    Raises HostError.
    """
    known = former.recall(root, guest.uuid or "").get(former.PERSISTENT)
    if known is None or known.undone:
        return settled
    there = former.pins_of(guest)
    stood = former.to_put_back(there, known)
    ours = [key for key in stood if there[key] == there[former.EMULATOR] and key not in settled.removed]
    removed = (*settled.removed, *ours)
    return settled.replace(removed=removed, back=_startable({key: stood.get(key) for key in removed}, guest, host))


def _startable(pins: Pins, guest: Domain, host: Host) -> dict[str, Cpus]:
    """Those of the `pins` that libvirt can start the guest with."""
    found = {key: cpuset.parse(pin) for key, pin in pins.items() if pin}
    return {key: cpus for key, cpus in found.items() if obstacle(cpus, guest, host) is None}
