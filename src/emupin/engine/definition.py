"""What a guest's persistent definition is to say of its emulator threads' CPUs.

The definition is a guest of its own: it may have other vCPU pins than the guest that runs, and so another plan.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen
from emupin.engine.startable import obstacle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain

    Cpus = frozenset[int]


class Settled(Frozen):
    """A definition's plan, and what comes of it in the XML."""

    plan: Plan
    pin: Cpus | None = None
    """None: the pin that is there stays, or goes."""
    obstacle: str | None = None
    """What is wrong with the pin that is there, which goes; None: it does not go."""
    removed: tuple[str, ...] = ()
    """Whose pins go: the emulator's, and those of iothreads, by their numbers, that follow it or did once."""
    back: Mapping[str, Cpus] = {}
    """What they give way to, where that is known: what stood there before emupin's own."""

    def differs(self, guest: Domain) -> bool:
        """Whether the definition `guest` says something else."""
        return bool(self.removed) or (self.pin is not None and not self.plan.is_in(guest))


def settle(guest: Domain, made: Plan, host: Host | None) -> Settled:
    """What the plan `made` for `guest` means for its XML: the pin, or nothing, or that one goes which must not hold.

    A guest that no rule takes, or that a rule keeps, is left as it is.
    """
    if made.pin is not None:
        return Settled(made, made.pin)
    ours = made.cpus is not None or made.failed
    impossible = obstacle(guest.emulatorpin, guest, host) if ours and guest.emulatorpin else None
    why = f"libvirt cannot start the guest with it: {impossible}" if impossible else made.taken
    if why is None:
        return Settled(made)
    pins = guest.iothreadpins.items() if made.follow_iothreads else ()
    followers = [str(each) for each, cpus in pins if cpus == guest.emulatorpin]
    return Settled(made, None, why, ("emulator", *followers))
