"""The pin that a guest's own domain XML has, where libvirt cannot start the guest with it.

libvirt has read the XML before it calls the hook: at `prepare` nothing that is printed helps, and that start fails. So
`prepare` says why and leaves a mark, and `release`, which libvirt calls when the start has failed, has the definition
corrected by the recording process.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import DEFINITIONS
from emupin.base.log import log
from emupin.base.system import os
from emupin.engine.definition import settle
from emupin.guest import splice
from emupin.node import postponed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.plan import Plan
    from emupin.guest.splice import Edit
    from emupin.node.decision import Decision


def is_ours(plan: Plan) -> bool:
    """Whether the definition is emupin's to correct."""
    return plan.persist and (plan.cpus is not None or plan.failed)


def complaint(root: str, decision: Decision) -> str | None:
    """What is wrong with the guest's own pin, and what to do; None where libvirt can start the guest with it."""
    guest, why = decision.guest, decision.obstacle
    if why is None:
        return None
    if not os.path.exists(f"{root}{DEFINITIONS}/{guest.name}.xml"):
        cure = "correct it where the guest's XML comes from"
    elif is_ours(decision.plan):
        cure = "the definition is corrected when this start has failed: start the guest again then"
    else:
        cpus = cpuset.format(decision.host.within(guest.partition))
        cure = f"`virsh emulatorpin {guest.uuid} {cpus} --config` changes it"
    return f"libvirt cannot start the guest with the <emulatorpin> of its definition: {why}; {cure}"


def judge(root: str, decision: Decision, refuses: bool) -> Decision:
    """`decision` with a warning of a pin that will make this start fail, whatever is printed.

    Raises HostError instead where trouble `refuses` the start: then libvirt's error says it.
    """
    told = complaint(root, decision)
    if told is None:
        return decision
    guest = decision.guest
    if is_ours(decision.plan):
        try:
            postponed.mark(root, guest.uuid or "")
        except OSError as error:
            log(root, f"{guest.name}: {error.filename}: {error.strerror}", trouble=True)
    if refuses:
        what, _, cure = told.rpartition("; ")
        raise HostError(f"guest {guest.name}", what, cure)
    log(root, f"{guest.name}: {told}", trouble=True)
    return decision.replace(problems=(*decision.problems, told))


def removal(root: str, decision: Decision) -> list[Edit]:
    """What takes an impossible pin out of the XML of a guest that comes in; nothing where there is none."""
    settled = settle(decision.guest, decision.plan, decision.host)
    if settled.obstacle is None:
        return []
    log(root, f"{decision.guest.name}: its <emulatorpin> is taken out: {settled.obstacle}", trouble=True)
    return splice.removal(decision.data, decision.guest, settled.removed)
