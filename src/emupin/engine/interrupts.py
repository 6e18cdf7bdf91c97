"""Which CPUs handle the interrupts of network cards: the guide keeps emulator threads off them.

They move about: a daemon may give them other CPUs every few seconds. A machine with hundreds of queues has as many
files to read, so the hook takes what it found up to a minute ago.
"""

from __future__ import annotations

import time

from emupin.base import cached
from emupin.base.errors import HostError
from emupin.base.files import RUN
from emupin.base.system import os
from emupin.engine.kernelfiles import GONE, cpus_in
from emupin.policy.values import KEEP, OFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.engine.host import Host
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

CARDS = "/sys/class/net"
AFFINITY = "/proc/irq/%s/effective_affinity_list"

CACHE = f"{RUN}/interrupts"
SECONDS = 60.0
"""How long the cache holds."""
ABOUT = "when, and which CPUs"


def matter(policy: Policy) -> bool:
    """Whether any decision by `policy` looks at interrupts."""
    return any(
        rule.checks["interrupts"] != OFF and any(placement.word != KEEP for placement in rule.placement)
        for rule in policy.rules
    )


def read(root: str) -> Cpus:
    """The CPUs that the kernel files below `root` name. Raises HostError.

    Only the message-signalled interrupts of a device are listed with it, as all cards have that are fast enough to
    matter. A card that goes away meanwhile has none.
    """
    found: Cpus = frozenset()
    for card in _listed(root + CARDS):
        for number in _listed(f"{root}{CARDS}/{card}/device/msi_irqs"):
            found |= cpus_in(root, AFFINITY % number)
    return found


def add(root: str, host: Host) -> Host:
    """`host` with what is read now. Raises HostError."""
    return host.replace(interrupts=read(root))


def add_cached(root: str, host: Host) -> Host:
    """`host` with what was read at most a minute ago. Raises HostError."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    at, cpus = cached.read(root + CACHE, ABOUT) or (-SECONDS, frozenset())
    if not 0 <= now - at < SECONDS:
        cpus = read(root)
        cached.keep(root + CACHE, ABOUT, (now, cpus))
    return host.replace(interrupts=cpus)


def _listed(folder: str) -> Iterable[str]:
    """Raises HostError."""
    try:
        return os.listdir(folder)
    except NotADirectoryError:
        return ()
    except OSError as error:
        if error.errno in GONE:
            return ()
        raise HostError(folder, f"cannot be listed: {error.strerror}", "is this a Linux host's file tree?") from None
