"""The running guests: what libvirt's status file says of each.

A guest's own faults stay its own: of one whose status file cannot be read, its threads alone are known.
"""

from __future__ import annotations

from emupin.base.errors import DomainError, HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.base.system import os
from emupin.node.book import UNKNOWN, RunningGuest, pinned, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.domain import Domain, Status
    from emupin.node.book import Stamp

    Cpus = frozenset[int]


class Reading(Frozen):
    """What one status file gave."""

    running: RunningGuest
    guest: Domain | None
    """None where the file cannot be read."""
    fault: str = ""
    """Why not."""


def status_files(root: str) -> Iterator[tuple[str, Stamp]]:
    """Every status file's name and stamp. Raises HostError."""
    folder = root + LIBVIRT_RUN
    try:
        # To ask there for a name is quickest.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # libvirt has not run yet: nobody holds anything.
    except OSError as error:
        raise HostError(folder, f"cannot be listed: {error.strerror}", "so the CPUs in use are not known") from None
    try:
        for name in sorted([name for name in os.listdir(descriptor) if name.endswith(".xml")]):
            try:
                status = os.stat(name, dir_fd=descriptor)
            except FileNotFoundError:
                continue  # Ended meanwhile.
            yield name, (status.st_mtime_ns, status.st_ino, status.st_size)
    finally:
        os.close(descriptor)


def read(root: str, name: str, stamp: Stamp, sections: frozenset[str]) -> Reading | None:
    """The guest of the status file `name`; None where it has ended meanwhile. Raises HostError for who is not root."""
    try:
        status = _status(root, name, sections)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        path = f"{root}{LIBVIRT_RUN}/{name}"
        raise HostError(path, f"cannot be read: {error.strerror}", "so the CPUs in use are not known") from None
    except (OSError, DomainError) as error:
        from emupin.node import guestthreads

        fault = f"guest {name[:-4]} is judged by its threads alone: {error}"
        return Reading(guestthreads.by_threads(root, name), None, fault)
    guest = status.domain
    return Reading(RunningGuest(guest.uuid or name, stamp, status.pid, *pinned(guest), recorded(guest)), guest)


def look_at(root: str, name: str, running: RunningGuest) -> RunningGuest:
    """The guest `running` with where its emulator threads are allowed now."""
    from emupin.node import guestthreads

    try:
        status = _status(root, name, frozenset())
    except (OSError, DomainError):
        status = guestthreads.nobody(running.pid)
    found = guestthreads.read(root, running.uuid, status)
    return running.replace(seen=found.emulator, floats=found.floats) if found else running.replace(seen=UNKNOWN)


def _status(root: str, name: str, sections: frozenset[str]) -> Status:
    """Raises OSError, DomainError."""
    from emupin.guest import statusxml  # Mostly no file has changed, and this is not needed.

    path = f"{root}{LIBVIRT_RUN}/{name}"
    return statusxml.read(read_bytes(path), path, sections)
