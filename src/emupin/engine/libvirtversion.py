"""Which libvirt a host has, as its library says: the daemon cannot be asked from inside a hook that it waits for.

`libvirt.so.0` holds the line that the daemon writes at the top of its log, with the distribution's own version of the
package: `libvirt version: 9.0.0, package: 10.1.el9_2 (Red Hat, …)`.
"""

from __future__ import annotations

import sys

from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LINE: Final = b"libvirt version: "
LONGEST = 120

_TRIPLET = getattr(sys.implementation, "_multiarch", "") or f"{os.uname().machine}-linux-gnu"
LIBRARIES: Final = tuple(
    f"{folder}/libvirt.so.0" for folder in ("/usr/lib64", f"/usr/lib/{_TRIPLET}", "/usr/lib", "/usr/local/lib64")
)

PRUNED = (9, 2, 0)
"""From here on a thread-context has only those of the memory's nodes on which the pin has a CPU."""
THREAD_CONTEXT = (9, 0, 0)
"""From here on preallocated memory has a thread-context."""
BACKPORT = (10, 1)
"""The build of 9.0.0 for RHEL 9 that has what PRUNED brought (rhbz#2185039)."""


def stamp(root: str) -> str:
    """What a library that was read already is known by: its place, time and size; empty where there is none."""
    for path in LIBRARIES:
        try:
            status = os.stat(root + path)
        except OSError:
            continue
        return f"{path} {status.st_mtime_ns} {status.st_size}"
    return ""


def read(root: str) -> str:
    """The version and, behind a blank, the package's: `9.0.0 10.1.el9_2`; empty where it cannot be found out."""
    for path in LIBRARIES:
        try:
            with open(root + path, "rb", buffering=0) as file:
                data = file.read()
        except OSError:
            continue
        start = data.find(LINE)
        if start >= 0:
            line = data[start + len(LINE) :][:LONGEST].partition(b"\0")[0].decode("ascii", "replace")
            version, _, package = line.partition(" (")[0].partition(", package: ")
            return f"{version} {package}".strip()
    return ""


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (9, 0, 0) for `9.0.0 10.1.el9_2`; none for what is not known."""
    found = []
    for part in text.partition(" ")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def has_whole_thread_context(libvirt: str) -> bool:
    """Whether QEMU is given a thread-context for all nodes of preallocated memory, whatever its pin.

    It is made after QEMU was confined to the pin, and fails where that has no CPU on those nodes.
    """
    version, package = numbers(libvirt), libvirt.partition(" ")[2]
    if version == THREAD_CONTEXT and ".el9" in package and numbers(package) >= BACKPORT:
        return False
    return THREAD_CONTEXT <= version < PRUNED
