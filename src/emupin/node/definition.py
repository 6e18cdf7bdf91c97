"""The plan of a persistent definition on this machine. Nothing is claimed: its next start decides anew."""

from __future__ import annotations

from emupin.engine.definition import Settled, settle
from emupin.engine.hostcache import read_cached
from emupin.engine.plan import plan
from emupin.engine.situation import cpus_that_matter
from emupin.node.claims import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy


def settle_definition(root: str, policy: Policy, guest: Domain) -> Settled:
    """What the definition `guest` is to say, with what other guests have now. Raises HostError, DomainError."""
    host = read_cached(root, guest.partition)
    others = Ledger.look(root, policy).others(guest.uuid, cpus_that_matter(guest, policy, host))
    return settle(guest, plan(guest, policy, host, others), host)
