"""Files below a root folder: read with a clear error, written whole or not at all, trusted only if root's own."""

from __future__ import annotations

import sys
import time

from emupin.base.errors import HostError, PolicyError
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

POLICIES: Final = ("/etc/emupin/policy.yaml", "/etc/emupin/policy.json")
RUN: Final = "/run/emupin"
STATE: Final = "/var/lib/emupin"
AUDIT: Final = "/var/log/emupin/audit.jsonl"
LIBVIRT_RUN: Final = "/run/libvirt/qemu"
DEFINITIONS: Final = "/etc/libvirt/qemu"
"""libvirt's persistent definitions."""
LIBVIRT_STATE: Final = "/var/lib/libvirt/qemu"
"""Where libvirt keeps the states of guests: managed saves and snapshots."""

LOCK_SECONDS = 4.0
"""How long to wait for another process; then the policy's `on_failure` decides."""

WRITABLE_BY_OTHERS: Final = 0o022
FILE_TYPE: Final = 0o170000
REGULAR: Final = 0o100000
"""From `stat`, whose import costs more than both."""


def root_from_environment() -> str:
    """The folder that stands for `/`: `$EMUPIN_ROOT` without a slash at its end, so that `root + "/etc"` is right."""
    return os.environ.get("EMUPIN_ROOT", "").rstrip("/")


def policy_path(root: str) -> str | None:
    """The policy file below `root` (empty for `/`), None where there is none. Raises PolicyError if there are two."""
    present = [root + path for path in POLICIES if os.path.lexists(root + path)]
    if len(present) > 1:
        raise PolicyError(" and ".join(present), "two policies", "remove one of them")
    return present[0] if present else None


def read_bytes(path: str, limit: int = sys.maxsize) -> bytes:
    """All bytes of a file, at most `limit`. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_stream(descriptor, limit)
    finally:
        os.close(descriptor)


def read_stream(descriptor: int, limit: int) -> bytes:
    """All that comes, at most `limit` bytes; the kernel gives a long list a page at a time. Raises OSError."""
    pieces, left = [], limit
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 16))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_text(root: str, path: str) -> str:
    """A kernel or libvirt file as text. Raises HostError, which says which file and why."""
    try:
        return os.fsdecode(read_bytes(root + path))
    except OSError as error:
        raise HostError(root + path, f"cannot be read: {error.strerror}", "is this a Linux host's file tree?") from None


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder. Raises HostError."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HostError(path, f"cannot be listed: {error.strerror}", "run it as root") from None


def read_trusted(path: str) -> bytes:
    """A file that decides what root does: it and its folder must be root's (or this user's own) and writable by nobody
    else.

    Raises PolicyError where they are not, OSError where the file cannot be read.
    """
    for place in (os.path.dirname(path), path):
        status = os.stat(place)
        if place == path and status.st_mode & FILE_TYPE != REGULAR:
            raise PolicyError(place, "is not a regular file", "replace it by one")
        if status.st_uid not in (0, os.geteuid()):
            raise PolicyError(place, f"belongs to user {status.st_uid}", f"`chown root {place}`")
        if status.st_mode & WRITABLE_BY_OTHERS:
            mode = oct(status.st_mode & 0o7777)[2:]
            raise PolicyError(place, f"is writable by others (mode {mode})", f"`chmod go-w {place}`")
    return read_bytes(path)


def make_private_folder(path: str) -> None:
    """A folder that only its owner may enter, with its parents. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make_private_folder(path)  # Another hook may have made it meanwhile.


def replace_file(path: str, data: bytes, durable: bool = True) -> None:
    """Make `path` hold `data`, mode 0600: whole, and on disk if `durable`, or as it was before.

    Raises OSError, which names `path`: that a disk is full the kernel says of no file.
    """
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            write_all(file.fileno(), data)
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = path
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def lock(descriptor: int, seconds: float = LOCK_SECONDS) -> None:
    """Wait a limited time to be the only one who has the file locked. Raises OSError."""
    import fcntl

    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)
