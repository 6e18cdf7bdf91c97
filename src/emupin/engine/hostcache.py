"""A host as the hook reads it: its topology from a cache, where that still holds, for it is thousands of files."""

from __future__ import annotations

from emupin.base import cached
from emupin.base.files import RUN
from emupin.engine import confinement, libvirtversion
from emupin.engine.host import Host
from emupin.engine.kernelfiles import ISOLATED_AT_BOOT, ISOLATED_SINCE, NODES, NOHZ_FULL, ONLINE, text_of

BOOT = "/proc/sys/kernel/random/boot_id"

KEY = (ONLINE, ISOLATED_AT_BOOT, ISOLATED_SINCE, NOHZ_FULL, NODES, BOOT)
"""The files that say whether a cached topology still holds: the rest changes only with a CPU, a node, a boot or
another libvirt."""

CACHE = f"{RUN}/topology"


def read_cached(root: str, partition: str | None = None) -> Host:
    """The host below `root`, with no partition but that of guests in `partition`: it may have others at any time.

    Raises HostError as `topology.read` does. A cache that cannot be read or written is made anew, now or by the next
    call.
    """
    about = _about(root)
    plain = cached.read(root + CACHE, about)
    if plain:
        found = Host.from_plain(plain)
    else:
        from emupin.engine import topology

        found = topology.without_partitions(root)
        if about == _about(root):  # Else it changed while it was read, and may change back.
            cached.keep(root + CACHE, about, found.to_plain())
    return found.confined(partition, confinement.read(root, partition or confinement.DEFAULT))


def _about(root: str) -> tuple[object, ...]:
    """What a cached topology must have been written about."""
    return Host._fields, (*(text_of(root, path) for path in KEY), libvirtversion.stamp(root))
