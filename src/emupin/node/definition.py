"""The plan of a persistent definition on this machine. Nothing is claimed: its next start decides anew."""

from __future__ import annotations

from emupin.engine.definition import settle
from emupin.node import former
from emupin.node.claims import Ledger
from emupin.node.decision import plan_beside, read_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.definition import Settled
    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy


def settle_definition(root: str, policy: Policy, guest: Domain) -> Settled:
    """What the definition `guest` is to say, with what other guests have now. Raises HostError, DomainError."""
    host = read_host(root, policy, guest)
    _, planned = plan_beside(Ledger.look(root, policy, host), guest, policy, host)
    return settle_as(root, guest, planned, host)


def settle_as(root: str, guest: Domain, planned: Plan, host: Host | None) -> Settled:
    """What the definition `guest` is to say where its plan is `planned`. Raises HostError."""
    return settle(guest, planned, host, former.stood(root, guest) if planned.decides or planned.taken else {})
