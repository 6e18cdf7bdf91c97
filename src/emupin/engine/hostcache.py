"""A host as the hook reads it: its topology from a cache, where that still holds, for it is thousands of files."""

from __future__ import annotations

import marshal
import sys

from emupin import __version__
from emupin.base.digest import hex_digest
from emupin.base.errors import PolicyError
from emupin.base.files import RUN, make_private_folder, read_trusted, replace_file
from emupin.engine import confinement, host, libvirtversion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host

BOOT = "/proc/sys/kernel/random/boot_id"

KEY = (host.ONLINE, host.ISOLATED_AT_BOOT, host.ISOLATED_SINCE, host.NOHZ_FULL, host.NODES, BOOT)
"""The files that say whether a cached topology still holds: the rest changes only with a CPU, a node, a boot or
another libvirt."""

CACHE = f"{RUN}/topology"

FORMAT = (__version__, sys.hexversion, host.Host._fields)
"""What a cached topology must have been written by: marshal's format follows the interpreter."""


def read_cached(root: str, partition: str | None = None) -> Host:
    """The host below `root`, with no partition but that of guests in `partition`: it may have others at any time.

    Raises HostError as `host.read` does. A cache that cannot be read or written is made anew, now or by the next call.
    """
    key = _key(root)
    found = _from_cache(root, key) or _to_cache(root, key, host.topology(root))
    return found.confined(partition, confinement.read(root, partition or confinement.DEFAULT))


def _key(root: str) -> tuple[str | None, ...]:
    return (*(host.text_of(root, path) for path in KEY), libvirtversion.stamp(root))


def _from_cache(root: str, key: tuple[str | None, ...]) -> Host | None:
    """The cached host; None where there is none for `key`, or it is torn, another version's or not to be trusted."""
    try:
        data = read_trusted(root + CACHE)
    except (OSError, PolicyError):
        return None
    digest, _, payload = data.partition(b"\n")
    if digest != hex_digest(payload).encode():
        return None
    try:
        written_by, written_for, plain = marshal.loads(payload)
    except (EOFError, ValueError, TypeError):  # Written whole, by an interpreter with another format.
        return None
    return host.Host.from_plain(plain) if (written_by, written_for) == (FORMAT, key) else None


def _to_cache(root: str, key: tuple[str | None, ...], found: Host) -> Host:
    if key != _key(root):
        return found  # It changed while it was read, and may change back.
    payload = marshal.dumps((FORMAT, key, found.to_plain()))
    try:
        make_private_folder(root + RUN)
        replace_file(root + CACHE, hex_digest(payload).encode() + b"\n" + payload, durable=False)
    except OSError:
        pass  # Only time is lost, and whoever else writes there reports it.
    return found
