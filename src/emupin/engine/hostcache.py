"""A host as the hook reads it: its topology from a cache, where that still holds, for it is thousands of files."""

from __future__ import annotations

from emupin.base import cached
from emupin.base.files import RUN
from emupin.engine import confinement, host, libvirtversion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host

BOOT = "/proc/sys/kernel/random/boot_id"

KEY = (host.ONLINE, host.ISOLATED_AT_BOOT, host.ISOLATED_SINCE, host.NOHZ_FULL, host.NODES, BOOT)
"""The files that say whether a cached topology still holds: the rest changes only with a CPU, a node, a boot or
another libvirt."""

CACHE = f"{RUN}/topology"


def read_cached(root: str, partition: str | None = None) -> Host:
    """The host below `root`, with no partition but that of guests in `partition`: it may have others at any time.

    Raises HostError as `host.read` does. A cache that cannot be read or written is made anew, now or by the next call.
    """
    about = _about(root)
    plain = cached.read(root + CACHE, about)
    found = host.Host.from_plain(plain) if plain else host.topology(root)
    if not plain and about == _about(root):  # Else it changed while it was read, and may change back.
        cached.keep(root + CACHE, about, found.to_plain())
    return found.confined(partition, confinement.read(root, partition or confinement.DEFAULT))


def _about(root: str) -> tuple[object, ...]:
    """What a cached topology must have been written about."""
    return host.Host._fields, (*(host.text_of(root, path) for path in KEY), libvirtversion.stamp(root))
