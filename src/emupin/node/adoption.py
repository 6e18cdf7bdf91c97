"""What running guests without a claim get: their ledger was lost, or they started before emupin was there."""

from __future__ import annotations

from emupin.base.mask import to_mask
from emupin.engine.situation import all_of, pinned_vcpus, vcpu_cpus
from emupin.node import guestthreads
from emupin.node.book import LONG_AGO, UNKNOWN, Claim
from emupin.policy.match import find_rule
from emupin.policy.values import AUTO, DEDICATED, ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.node.book import RunningGuest
    from emupin.node.claims import Ledger
    from emupin.policy.values import Placement, Policy

    Newcomer = tuple[RunningGuest, Domain]


def adopt(ledger: Ledger, newcomers: list[Newcomer], policy: Policy, host: Host) -> None:
    """Let the `newcomers` keep alone what their threads are on, but for what somebody has.

    Where the threads of several are on one CPU, each keeps it: whose it was nobody can tell any more, and nobody else
    gets it before the last of them has left. Whose threads cannot be asked, since they have ended or are another
    container's, keeps what libvirt has recorded, if nobody is there: a record may be stale, threads are not.
    """
    earlier = list(ledger.claims.values())
    for running, guest in sorted(newcomers, key=lambda each: each[0].seen == UNKNOWN):
        claim = _claim(ledger, running, guest, policy, host)
        alone, rivals = claim.alone if claim else 0, ledger.claims.values() if running.seen == UNKNOWN else earlier
        if claim and not any((other.cpus | other.vhost | other.former) & alone for other in rivals):
            ledger.claims[running.uuid] = claim


def _claim(ledger: Ledger, running: RunningGuest, guest: Domain, policy: Policy, host: Host) -> Claim | None:
    """To the CPUs where its threads are, if the policy would have dedicated so many to it; None where it has none so.

    They must be fit for it: in the pool, and no vCPU of its own is pinned there, or floats there against the policy.
    """
    rule = find_rule(guest, policy, host.cores)
    if rule is None or policy.pool is None or running.floats:
        return None
    own = vcpu_cpus(guest) if rule.checks["floating"] == ERROR else all_of(pinned_vcpus(guest, host))
    fit = to_mask(policy.pool - own)

    def is_alone(cpus: int, placements: Iterable[Placement]) -> bool:
        return cpus > 0 and not cpus & ~fit and bin(cpus).count("1") in _sizes(placements)

    cpus, vhost = running.seen if running.seen > 0 else to_mask(guest.emulatorpin or ()), 0
    if rule.vhost and running.seen > 0 and (main := guestthreads.main_thread(ledger.root, running.pid)) > 0:
        cpus, vhost = main, guestthreads.vhost_workers(ledger.root, running.pid)
    dedicated, apart = is_alone(cpus, rule.placement), vhost != cpus and is_alone(vhost, rule.vhost)
    if not dedicated and not apart:
        return None
    return Claim(cpus, dedicated, LONG_AGO, vhost=vhost if apart else 0, vhost_dedicated=apart)


def _sizes(placements: Iterable[Placement]) -> set[int]:
    """How many CPUs they may dedicate."""
    return {each.number or 1 for each in placements if each.word in (AUTO, DEDICATED)}
