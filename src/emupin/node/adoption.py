"""What running guests without a claim get: their ledger was lost, or they started before emupin was there."""

from __future__ import annotations

from emupin.base.mask import to_mask
from emupin.engine.situation import vcpu_cpus
from emupin.node.book import UNKNOWN, Claim
from emupin.policy.match import find_rule
from emupin.policy.values import AUTO, DEDICATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.node.book import Book, RunningGuest
    from emupin.policy.match import Cores
    from emupin.policy.values import Policy

    Newcomer = tuple[RunningGuest, Domain]


def adopt(book: Book, newcomers: list[Newcomer], policy: Policy) -> None:
    """Let the `newcomers` keep alone what their threads are on.

    Whose threads cannot be asked, since they have ended or are another container's, keeps what libvirt has recorded, if
    nobody is there: a record may be stale, threads are not.
    """
    for running, guest in sorted(newcomers, key=lambda each: each[0].seen == UNKNOWN):
        cpus = _alone(running, guest, policy, book.host.cores if book.host else ())
        if cpus and not any((claim.cpus | claim.former) & cpus for claim in book.claims.values()):
            book.claims[running.uuid] = Claim(cpus, True, book.now)


def _alone(running: RunningGuest, guest: Domain, policy: Policy, cores: Cores) -> int:
    """The CPUs where its emulator threads are, if the policy would have dedicated so many to it.

    They must be fit for it: in the pool, and none of its own vCPUs runs there.
    """
    rule = find_rule(guest, policy, cores)
    if rule is None or policy.pool is None:
        return 0
    sizes = {placement.number for placement in rule.placement if placement.word == DEDICATED}
    if any(placement.word == AUTO for placement in rule.placement):
        sizes.add(1)
    cpus = running.seen if running.seen > 0 else to_mask(guest.emulatorpin or ())
    fit = to_mask(policy.pool - vcpu_cpus(guest))
    return cpus if cpus and not cpus & ~fit and bin(cpus).count("1") in sizes else 0
