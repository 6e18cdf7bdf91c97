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
from emupin.guest.domain import command, element
from emupin.guest.domainxml import read
from emupin.node import postponed
from emupin.node.definition import settle_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.guest.splice import Edit
    from emupin.node.decision import Decision


CORRECTED = "the definition is corrected when this start has failed: start the guest again then"


def complaint(root: str, decision: Decision) -> str | None:
    """What is wrong with the guest's own pins, and what to do; None where libvirt can start the guest with them."""
    guest, stuck = decision.guest, decision.stuck
    if not stuck:
        return None
    key, why = next(iter(stuck.items()))
    if not _is_defined(root, guest, key):
        whose, cure = "that came with it", "correct it where the guest's XML comes from"
    elif _is_corrected(root, decision, key):
        whose = "of its definition"
        cure = CORRECTED
    else:
        cpus = cpuset.format(decision.host.within(guest.partition))
        whose, cure = "of its definition", f"`{command(key, guest.uuid or '', cpus)}` changes it"
    return f"libvirt cannot start the guest with the {element(key)} {whose}: {why}; {cure}"


def _is_defined(root: str, guest: Domain, key: str) -> bool:
    """Whether the pin is that of the guest's definition, and not of XML that it is started from (`virsh create`)."""
    path = f"{root}{DEFINITIONS}/{guest.name}.xml"
    try:
        definition = read(read_bytes(path), path, frozenset())
    except (OSError, DomainError):
        return False
    return definition.pins.get(key) == guest.pins[key]


def _is_corrected(root: str, decision: Decision, key: str) -> bool:
    """Whether the pin is emupin's to correct: the emulator's, or an iothread's that follows it or did once.

    Raises HostError.
    """
    settled = settle_as(root, decision.guest, decision.plan, decision.host)
    return decision.plan.persist and key in settled.changes(decision.guest)


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
    """What takes impossible pins out of the XML of a guest that comes in; nothing where there is none."""
    guest, settled = decision.guest, settle(decision.guest, decision.plan, decision.host, stood={})
    for key, why in settled.reasons.items():
        log(root, f"{guest.name}: its {element(key)} is taken out: {why}", trouble=True)
    return splice.give_way(decision.data, guest, settled.leaving)
