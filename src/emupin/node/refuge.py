"""Where a guest goes that has no placement, and whose pin is on CPUs that another guest has alone.

libvirt starts a guest with the pin that its definition has, maybe emupin's own of the last run, and asks nobody.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import EmupinError
from emupin.base.system import os
from emupin.engine.situation import all_of, pinned_vcpus
from emupin.guest.threads import check_process, read_status_file
from emupin.node.claims import Ledger
from emupin.node.enforce import enforce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.node.decision import Decision

    Cpus = frozenset[int]


def move_away(root: str, decision: Decision) -> str:
    """Move the emulator threads of a running guest off CPUs that others have alone; what came of it, in a clause."""
    plan, guest = decision.plan, decision.guest
    why = f"its pin is {cpuset.format(guest.emulatorpin or ())}, and {plan.taken}"
    try:
        cpus = refuge(root, decision)
        if not cpus:
            return f"{why}; there is no other CPU for its emulator threads"
        status = read_status_file(root, guest.name)
        check_process(root, status.pid, guest.uuid or "")
        enforce(root, status, cpus, os.sched_setaffinity, plan.follow_iothreads).check(guest.name, cpus)
        _settle_there(root, decision, cpus)
    except EmupinError as error:
        return f"{why}; {error}"
    return f"{why}: its emulator threads were moved to {cpuset.format(cpus)}"


def _settle_there(root: str, decision: Decision, cpus: Cpus) -> None:
    """Note where the guest is now: libvirt's record of where it was keeps nobody from that CPU any more.

    Raises HostError.
    """
    with Ledger(root, decision.policy, decision.host) as ledger:
        ledger.claim(decision.guest.uuid or "", cpus, dedicated=False)
        ledger.look_again(decision.guest.uuid or "")
        ledger.save()


def refuge(root: str, decision: Decision) -> Cpus:
    """Where libvirt puts the threads of a guest without a pin, but for what others have alone; if there is enough, off
    the pool, which is for others to have alone, off the CPUs of vCPUs and off those that the policy reserves; off those
    of its own vCPUs 1 and above wherever it can be.

    Raises HostError.
    """
    guest, host = decision.guest, decision.host
    others = Ledger.look(root, decision.policy, host).others(guest.uuid, host.online)
    anywhere = guest.unpinned or host.balanced(host.within(guest.partition))
    free = anywhere & host.within(guest.partition) - all_of(others.dedicated)
    own = pinned_vcpus(guest, host)
    quiet = free - all_of({vcpu: cpus for vcpu, cpus in own.items() if vcpu})
    apart = quiet - all_of(own) - all_of(others.vcpus) - decision.policy.reserved
    return apart - (decision.policy.pool or frozenset()) or apart or quiet or free
