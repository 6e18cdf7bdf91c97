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
    from emupin.policy.values import Policy


def settle_definition(root: str, policy: Policy, guest: Domain) -> Settled:
    """What the definition `guest` is to say, with what other guests have now. Raises HostError, DomainError."""
    host = read_host(root, policy, guest)
    _, planned = plan_beside(Ledger.look(root, policy, host), guest, policy, host)
    settled = settle(guest, planned, host)
    return _with_former(root, settled, guest, host) if settled.obstacle else settled


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
    back = {key: cpuset.parse(pin) for key in removed if (pin := stood.get(key))}
    startable = {key: cpus for key, cpus in back.items() if obstacle(cpus, guest, host) is None}
    return settled.replace(removed=removed, back=startable)
