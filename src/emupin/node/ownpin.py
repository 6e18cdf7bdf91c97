"""A pin that a guest's own domain XML has, where libvirt cannot start the guest with it.

libvirt has read the XML before it calls the hook: at `prepare` nothing that is printed helps, and that start fails. So
`prepare` says why and leaves a mark, and `release`, which libvirt calls when the start has failed, has the definition
corrected by the recording process.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import DomainError, HostError
from emupin.base.files import DEFINITIONS, read_bytes
from emupin.base.log import log
from emupin.engine.definition import settle
from emupin.guest import splice
from emupin.guest.domainxml import read
from emupin.node import former, postponed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain
    from emupin.guest.splice import Edit
    from emupin.node.decision import Decision


CORRECTED = "the definition is corrected when this start has failed: start the guest again then"


def is_ours(plan: Plan) -> bool:
    """Whether the definition is emupin's to correct."""
    return plan.persist and (plan.cpus is not None or plan.failed)


def complaint(root: str, decision: Decision) -> str | None:
    """What is wrong with the guest's own pins, and what to do; None where libvirt can start the guest with them."""
    guest, stuck = decision.guest, decision.stuck
    if not stuck:
        return None
    key, why = next(iter(stuck.items()))
    pin = "<emulatorpin>" if key == former.EMULATOR else f"<iothreadpin> of iothread {key}"
    if not _is_defined(root, guest, key):
        whose, cure = "that came with it", "correct it where the guest's XML comes from"
    elif _is_corrected(root, decision, key):
        whose = "of its definition"
        cure = CORRECTED
    else:
        cpus = cpuset.format(decision.host.within(guest.partition))
        words = "emulatorpin {}" if key == former.EMULATOR else f"iothreadpin {{}} {key}"
        whose, cure = "of its definition", f"`virsh {words.format(guest.uuid)} {cpus} --config` changes it"
    return f"libvirt cannot start the guest with the {pin} {whose}: {why}; {cure}"


def _is_defined(root: str, guest: Domain, key: str) -> bool:
    """Whether the pin is that of the guest's definition, and not of XML that it is started from (`virsh create`)."""
    path = f"{root}{DEFINITIONS}/{guest.name}.xml"
    try:
        definition = read(read_bytes(path), path, frozenset())
    except (OSError, DomainError):
        return False
    return former.pins_of(definition).get(key) == former.pins_of(guest)[key]


def _is_corrected(root: str, decision: Decision, key: str) -> bool:
    """Whether the pin is emupin's to correct: the emulator's, or an iothread's that follows it or did once.

    Raises HostError.
    """
    if not is_ours(decision.plan) or key == former.EMULATOR or decision.plan.follow_iothreads:
        return is_ours(decision.plan)
    return key in former.once_followed(root, decision.guest)


def judge(root: str, decision: Decision, refuses: bool) -> Decision:
    """`decision` with a warning of a pin that will make this start fail, whatever is printed.

    Raises HostError instead where trouble `refuses` the start: then libvirt's error says it.
    """
    told = complaint(root, decision)
    if told is None:
        return decision
    guest = decision.guest
    if told.endswith(CORRECTED):
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
