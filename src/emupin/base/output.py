"""What `-o FILE` names: a file is replaced in one step, a device or a pipe is written to, `-` is stdout."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import EmupinError

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP = "replace FILE in one step; - is stdout"

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def save(path: str | None, data: bytes, mode: int | None = None) -> None:
    """Write `data` where `opened` writes; what goes to a terminal is made safe for it. Raises as `opened` does."""
    if is_stdout(path):
        streams.put(data)
        return
    with opened(path, mode) as file:
        file.write(data)


@contextmanager
def opened(path: str | None, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Where to write for `-o PATH`; without one it is stdout. A file is replaced once all is written, or stays.

    A file that is there keeps its owner and mode; a new one has `mode`, None: what the umask leaves.
    Raises EmupinError, and BrokenPipeError where stdout's reader is gone.
    """
    if path is None or is_stdout(path):
        with streams.stdout() as file:
            yield file
        return
    try:
        with _file(path, mode) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EmupinError(path, f"cannot be written: {error.strerror}", "name another file") from None


def is_stdout(path: str | None) -> bool:
    """Also by the name of what the shell has made stdout: to replace that would leave stdout a file without a name."""
    if path is None or path == "-":
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(streams.STDOUT))
    except OSError:
        return False


@contextmanager
def _file(path: str, mode: int | None) -> Iterator[IO[bytes]]:
    """Raises OSError."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:
            yield file
        return
    path = os.path.realpath(path)  # Of a link the target is replaced.
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, FLAGS, 0o666 if mode is None else mode)
    try:
        with open(descriptor, "wb") as file:
            _set_access(descriptor, old, mode)
            yield file
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _set_access(descriptor: int, old: os.stat_result | None, mode: int | None) -> None:
    """Before anything is written. Raises OSError."""
    if old:
        with suppress(PermissionError):  # Another user's file in a folder of ours.
            os.fchown(descriptor, old.st_uid, old.st_gid)
        mode = stat.S_IMODE(old.st_mode)
    if mode is not None:
        os.fchmod(descriptor, mode)
