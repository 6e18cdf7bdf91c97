"""What a guest's persistent definition is to say of its emulator threads' CPUs.

The definition is a guest of its own: it may have other vCPU pins than the guest that runs, and so another plan.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen
from emupin.engine.startable import obstacle, stuck
from emupin.guest.domain import EMULATOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain

    Cpus = frozenset[int]


NO_MORE = "its iothreads do not go with the emulator threads any more"


class Settled(Frozen):
    """A definition's plan, and what comes of it in the XML: its pin is there, and those that are `leaving` are not."""

    plan: Plan
    leaving: Mapping[str, Cpus | None] = {}
    """Pins that must not stay, by whose they are, with what they give way to; None: with nothing."""
    reasons: Mapping[str, str] = {}
    """Why, for each of them."""

    def changes(self, guest: Domain) -> dict[str, Cpus | None]:
        """The pins of the definition `guest` that are to be others, by whose they are; None for one that goes."""
        pin = self.plan.pin
        planned = {} if pin is None else guest.differing(pin, self.plan.follow_iothreads)
        return {**self.leaving, **planned}


def settle(guest: Domain, made: Plan, host: Host | None, stood: Mapping[str, Cpus | None]) -> Settled:
    """What the plan `made` for `guest` means for its XML: the pin, or nothing, or that one goes which must not hold.

    `stood` is what was there before those of its pins that emupin has put there: it comes back where libvirt can start
    the guest with it. A guest that no rule takes, or that a rule keeps, is left as it is, but for a pin of emupin's on
    CPUs that another guest has alone by now.
    """
    if not made.decides and made.taken and EMULATOR in stood:
        return Settled(made, {EMULATOR: _startable(stood[EMULATOR], guest, host)}, {EMULATOR: made.taken})
    if not made.decides:
        return Settled(made)
    reasons = _must_go(guest, made, host) if made.pin is None else {}
    if not made.follow_iothreads:
        reasons = {EMULATOR: reasons[EMULATOR]} if EMULATOR in reasons else {}
        reasons.update(dict.fromkeys([key for key in stood if key != EMULATOR], NO_MORE))
    return Settled(made, {key: _startable(stood.get(key), guest, host) for key in reasons}, reasons)


def _must_go(guest: Domain, made: Plan, host: Host | None) -> dict[str, str]:
    """Why pins of the definition `guest` cannot stay where the plan `made` has none to put there, by whose they are."""
    reasons = {key: f"libvirt cannot start the guest with it: {why}" for key, why in stuck(guest, host).items()}
    if made.taken:
        reasons.setdefault(EMULATOR, made.taken)
    if EMULATOR in reasons:
        followers = [key for key, cpus in guest.pins.items() if cpus == guest.emulatorpin]
        reasons = {**dict.fromkeys(followers, reasons[EMULATOR]), **reasons}
    return reasons


def _startable(cpus: Cpus | None, guest: Domain, host: Host | None) -> Cpus | None:
    """Those `cpus` if libvirt can start the guest with its emulator threads there."""
    return cpus if cpus and obstacle(cpus, guest, host) is None else None
