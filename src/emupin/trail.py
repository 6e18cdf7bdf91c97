"""The file of the audit trail: one JSON object a line, each with the SHA-256 of the line before.

Writers take turns by a lock on the folder, which no rotation renames. The hash of the last line is kept in
`var/lib/emupin/audit-head` too: a new file after a rotation goes on from there, and a trail whose end was cut off does
not fit it. Entries that could not be written are counted below `/run`, and the next one that can be says so.
"""

from __future__ import annotations

import os

from emupin.digest import hex_digest
from emupin.errors import HostError
from emupin.files import AUDIT, RUN, STATE, lock, make_private_folder, read_bytes, write_all
from emupin.jsonline import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.jsonline import Json

HEAD = f"{STATE}/audit-head"
LOST = f"{RUN}/audit-lost"
ROTATED = ".1"
"""Appended to the trail's name by logrotate; kept uncompressed until the next rotation (`delaycompress`)."""

BLOCK = 1 << 16
"""Bytes to read at a time when looking for the start of the last line."""


def append(root: str, entry: dict[str, Json], durable: bool = False) -> None:
    """Write `entry` at the end of the trail below `root`, and if `durable` wait until the disk has it.

    A line that a power cut has torn stays in its place, ended, and is mentioned in a line of its own.
    Raises HostError where the entry is not in the file afterwards.
    """
    path = root + AUDIT
    try:
        folder = os.path.dirname(path)
        make_private_folder(folder)
        turn = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(turn)
            _append(root, path, entry, durable)
        finally:
            os.close(turn)
    except OSError as error:
        _count_lost(root, entry)
        hint = "make room, or mend its folder: until then nothing is audited"
        raise HostError(path, f"cannot be written: {error.strerror}", hint) from None


def _append(root: str, path: str, entry: dict[str, Json], durable: bool) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        last = last_line(descriptor, size)
        extra, start = _extra_entries(root, entry, bool(last) and not last.endswith(b"\n")), b""
        if last and not last.endswith(b"\n"):
            start, last = b"\n", last + b"\n"
        previous = hex_digest(last) if last else _head_before(root, path)
        lines = []
        for each in (*extra, entry):
            line = encode({**each, "previous": previous}).encode("ascii") + b"\n"
            lines.append(line)
            previous = hex_digest(line)
        try:
            write_all(descriptor, start + b"".join(lines))
        except OSError:
            os.ftruncate(descriptor, size)  # The disk had room for a part of it only.
            raise
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    _finish(root, previous or "", bool(extra))


def last_line(descriptor: int, size: int) -> bytes:
    """The bytes of the last line of a file of `size` bytes, its line end included if it has one."""
    data, start = b"", size
    while start and b"\n" not in data[:-1]:
        length = min(start, BLOCK)
        start -= length
        data = os.pread(descriptor, length, start) + data
    return data[data.rfind(b"\n", 0, len(data) - 1) + 1 :] if data else b""


def _extra_entries(root: str, entry: dict[str, Json], torn: bool) -> list[dict[str, Json]]:
    """What has to be said ahead of `entry`: that the line before is torn, that entries are missing."""
    common: dict[str, Json] = {"time": entry.get("time"), "host": entry.get("host")}
    extra: list[dict[str, Json]] = []
    if torn:
        extra.append({**common, "op": "mend", "outcome": "failed", "reason": "the line before was torn"})
    try:
        lost = read_bytes(root + LOST).splitlines()
    except FileNotFoundError:
        return extra
    reason = f"{len(lost)} entries could not be written, the first at {os.fsdecode(lost[0]) if lost else 'some time'}"
    return [*extra, {**common, "op": "gap", "outcome": "failed", "reason": reason}]


def _head_before(root: str, path: str) -> str | None:
    """The hash that the first line of a new file goes on from: of the last line before a rotation, if there was one."""
    try:
        descriptor = os.open(path + ROTATED, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return read_head(root)
    try:
        last = last_line(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    return hex_digest(last) if last else read_head(root)


def read_head(root: str) -> str | None:
    """The hash of the last line that was written below `root`; None where none was. Raises OSError."""
    try:
        return os.fsdecode(read_bytes(root + HEAD, 64)) or None
    except FileNotFoundError:
        return None


def _finish(root: str, head: str, told_of_lost: bool) -> None:
    """Keep the head, and forget the lost entries that the trail now tells of.

    Failing to is no trouble: the next writer goes on from the last line, and `audit verify` says that the head is old.
    """
    try:
        make_private_folder(root + STATE)
        descriptor = os.open(root + HEAD, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, head.encode() + b"\n", 0)
        finally:
            os.close(descriptor)
        if told_of_lost and os.path.exists(root + LOST):
            os.unlink(root + LOST)
    except OSError:
        return


def _count_lost(root: str, entry: dict[str, Json]) -> None:
    """Note that `entry` is not in the trail. Where that fails, too, syslog alone knows: the caller reports there."""
    try:
        make_private_folder(root + RUN)
        descriptor = os.open(root + LOST, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, f"{entry.get('time')}\n".encode())
        finally:
            os.close(descriptor)
    except OSError:
        return
