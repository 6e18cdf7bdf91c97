"""Documents in files: read whole, and replaced in one step with everything that belongs to the file kept.

A reader sees the old document or the new one, never a part, and a failure or a signal leaves the old one. Against a
power cut that holds where the file system orders a rename behind the data, as ext4 does when a file is replaced; XFS
does not, so there, or to be sure, ask for `sync`: it takes several times as long as the rest of the work.
"""

from __future__ import annotations

import errno
import os
import stat

from emupin.base.errors import EmupinError
from emupin.base.files import write_all
from emupin.guest.document import read_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_NAME = 255
"""Bytes that Linux allows for the name of a file."""

REGULAR = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How to open what must be a regular file: without waiting at a FIFO, and noticing a link."""


def update(path: str, change: Callable[[bytes], bytes], sync: bool) -> tuple[bytes, bytes]:
    """Replace the document in `path` by what `change` makes of it; both. Nothing is written where they are equal.

    Of a link the target is replaced. Raises OSError, EmupinError, and whatever `change` raises.
    """
    descriptor, path = _open(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise EmupinError(path, "is not a regular file", "only files can be changed in place")
        before = read_descriptor(descriptor, status.st_size)
        after = change(before)
        if after != before:
            _replace(path, after, descriptor, status, sync)
    finally:
        os.close(descriptor)
    return before, after


def _open(path: str) -> tuple[int, str]:
    """`path` opened, and the path of what it leads to."""
    try:
        return os.open(path, REGULAR), path
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    path = os.path.realpath(path)
    return os.open(path, REGULAR), path


def _replace(path: str, data: bytes, original: int, status: os.stat_result, sync: bool) -> None:
    temporary, descriptor = _create(path, stat.S_IMODE(status.st_mode))
    try:
        try:
            write_all(descriptor, data)
            _keep_attributes(original, status, descriptor)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _create(path: str, mode: int) -> tuple[str, int]:
    """A new file beside `path`: hidden, and not named `*.xml`, so that nothing takes it for a domain."""
    folder, slash, name = path.rpartition("/")
    while True:
        temporary = f".{name}.emupin-{os.urandom(4).hex()}"
        if len(temporary) > LONGEST_NAME // 4 and len(os.fsencode(temporary)) > LONGEST_NAME:
            name = ""
            continue
        try:
            temporary = folder + slash + temporary
            return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o777)
        except FileExistsError:
            continue


def _keep_attributes(original: int, status: os.stat_result, descriptor: int) -> None:
    """Owner, mode and extended attributes (SELinux label, ACL) of `original`. Raises OSError where one is refused."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
        new = os.fstat(descriptor)
    _keep_extended(original, descriptor)
    if new.st_mode != status.st_mode:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _keep_extended(original: int, descriptor: int) -> None:
    wanted, present = _attributes(original), _attributes(descriptor)
    for name in present.keys() - wanted.keys():
        os.removexattr(descriptor, name)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(descriptor, name, value)


def _attributes(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without them
            return {}
        raise
    return {name: os.getxattr(descriptor, name) for name in names}
