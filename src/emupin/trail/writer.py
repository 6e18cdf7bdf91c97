"""The file of the audit trail: one JSON object a line, each with the SHA-256 of the line before.

Writers take turns by a lock on the folder, which no rotation renames. The hash of the last line is kept in
`var/lib/emupin/audit-head` too: a new file after a rotation goes on from there, and a trail whose end was cut off does
not fit it. Entries that could not be written are counted below `/run`, and the next one that can be says so.

Each trouble leaves an entry ahead of the next one: `mend` names a torn line's bytes and the line before it by their
hashes, `gap` tells of entries that are missing.
"""

from __future__ import annotations

from emupin.base.digest import hex_digest
from emupin.base.errors import HostError
from emupin.base.files import AUDIT, LOCK_SECONDS, RUN, STATE, lock, make_private_folder, read_bytes, write_all
from emupin.base.jsonline import encode
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.base.jsonline import Json

HEAD = f"{STATE}/audit-head"
LOST = f"{RUN}/audit-lost"
"""A folder with a file for each entry that could not be written, named by its time: made, told of and removed alone,
however many hooks run at once."""

ROTATED = ".1"
"""Appended to the trail's name by logrotate; kept uncompressed until the next rotation (`delaycompress`)."""

BLOCK = 1 << 12
"""Bytes to read at first when looking for the start of the last line: an entry is one or two kilobytes."""

NEAR_END = 1 << 20
"""How many of the last bytes must know the kept head: one that is some entries old has only missed its own writing."""

HEX = 64
"""Characters of a hash."""


def append(root: str, entry: dict[str, Json], durable: bool = False, patience: float = LOCK_SECONDS) -> None:
    """Write `entry` at the end of the trail below `root`, and if `durable` wait until the disk has it.

    `patience` is how long to wait for other writers, in seconds. A line that a power cut has torn stays in its place,
    ended, and is mentioned in a line of its own.
    Raises HostError where the entry is not in the file afterwards.
    """
    path = root + AUDIT
    try:
        folder = os.path.dirname(path)
        make_private_folder(folder)
        turn = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(turn, patience)
            _append(root, path, entry, durable)
        finally:
            os.close(turn)
    except OSError as error:
        _count_lost(root, entry)
        hint = "free some space, or fix the folder: nothing is audited until then"
        raise HostError(path, f"cannot be written: {error.strerror}", hint) from None


def _append(root: str, path: str, entry: dict[str, Json], durable: bool) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        start, previous, trouble = _end(path, descriptor, size, read_head(root))
        lost = lost_entries(root)
        begins = not size and previous is not None
        data, head = _chained(trouble + _gap_entries(lost), entry, previous, begins)
        try:
            write_all(descriptor, start + data)
        except OSError:
            os.ftruncate(descriptor, size)  # The disk had room for a part of it only.
            raise
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    _forget(root, lost)
    _keep_head(root, head)


def _end(path: str, descriptor: int, size: int, head: str | None) -> tuple[bytes, str | None, list[dict[str, Json]]]:
    """What ends a torn line, the hash that the next line goes on from, and the entries that have to stand before it."""
    last = last_line(descriptor, size)
    if not last:
        return b"", _head_before(path, head), []
    start, trouble = b"", []
    intact: Json = hex_digest(last)
    if not last.endswith(b"\n"):
        start, trouble = b"\n", [_mend_entry(path, descriptor, size, head)]
        intact = trouble[0]["intact"]
    if head not in (None, intact) and not _knows(descriptor, size, head):
        trouble.append(_cut_entry(head))
    return start, hex_digest(last + start), trouble


def _chained(
    extra: list[dict[str, Json]], entry: dict[str, Json], previous: str | None, begins: bool
) -> tuple[bytes, str]:
    """The lines of the `extra` entries and of `entry`, which go on from `previous`; the hash of the last one.

    The first one says that a rotation `begins` a file with it: so lines that are cut off there are missed.
    """
    common = {key: entry[key] for key in ("time", "host", "emupin") if key in entry}
    lines = []
    mark: dict[str, Json] = {"rotated": True} if begins else {}
    for each in [*[{**common, **one, "outcome": "failed"} for one in extra], entry]:
        line = encode({**each, **mark, "previous": previous}).encode("ascii") + b"\n"
        lines.append(line)
        previous, mark = hex_digest(line), {}
    return b"".join(lines), previous or ""


def last_line(descriptor: int, size: int) -> bytes:
    """The bytes of the last line of a file of `size` bytes, its line end included if it has one."""
    length = BLOCK
    while True:
        start = max(size - length, 0)
        data = os.pread(descriptor, size - start, start)
        end = data.rfind(b"\n", 0, len(data) - 1)
        if end >= 0 or not start:
            return data[end + 1 :]
        length *= 4  # A file may be damaged: a gigabyte of zeros is no reason to read it a thousand times.


# -- trouble that the next entry tells of -----------------------------------------------------------------------------


def _mend_entry(path: str, descriptor: int, size: int, head: str | None) -> dict[str, Json]:
    """The line at the end is torn: it may lack its own `previous`, so here are its hash and that of the line before.

    Lines before it may be torn, too: they count as part of it.
    """
    end = size
    while end and not _is_whole(line := last_line(descriptor, end)):
        end -= len(line)
    intact = hex_digest(line) if end else _head_before(path, head)
    torn = hex_digest(os.pread(descriptor, size - end, end) + b"\n")
    mark: dict[str, Json] = {} if end or intact is None else {"rotated": True}  # The torn line began the file.
    return {"op": "mend", "reason": "the previous line was incomplete", "intact": intact, "torn": torn, **mark}


def _is_whole(line: bytes) -> bool:
    """Whether `line` ends as the writer ends one: with its `previous`, which is null in the first line of all."""
    return (line.endswith(b'"}\n') and line[-HEX - 18 : -HEX - 3] == b', "previous": "') or (
        line.startswith(b'{"') and line.endswith(b', "previous": null}\n')
    )


def lost_entries(root: str) -> list[str]:
    """Names of the lost entries that the trail does not tell of yet, the oldest first. Raises OSError."""
    try:
        return sorted(os.listdir(root + LOST))
    except FileNotFoundError:
        return []


def _gap_entries(lost: list[str]) -> list[dict[str, Json]]:
    return [{"op": "gap", "reason": told_lost(lost)}] if lost else []


def told_lost(lost: list[str]) -> str:
    """How many entries are missing since when, from their names."""
    number = "1 entry" if len(lost) == 1 else f"{len(lost)} entries"
    return f"{number} could not be written, the first at {lost[0].partition('_')[0]}"


def _cut_entry(head: str | None) -> dict[str, Json]:
    return {
        "op": "gap",
        "reason": "entries at the end are missing: the last one is not what audit-head says",
        "head": head,
    }


def _knows(descriptor: int, size: int, head: str | None) -> bool:
    """Whether a line near the end goes on from the line that has the hash `head`."""
    start = max(size - NEAR_END, 0)
    return (head or "").encode() in os.pread(descriptor, size - start, start)


def _head_before(path: str, head: str | None) -> str | None:
    """The hash that the first line of a new file goes on from: of the last line before a rotation, if there was one.

    A rotated file that does not know the kept `head` is not the one that was written last, or has lost its end.
    """
    try:
        descriptor = os.open(path + ROTATED, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return head
    try:
        size = os.fstat(descriptor).st_size
        last = last_line(descriptor, size)
        fits = head in (None, hex_digest(last)) or (last.endswith(b"\n") and _knows(descriptor, size, head))
    finally:
        os.close(descriptor)
    return hex_digest(last) if last and fits else head


def read_head(root: str) -> str | None:
    """The hash of the last line that was written below `root`; None where none was, or it cannot be read."""
    try:
        return head_in(root + HEAD)
    except OSError:
        return None


def head_in(path: str) -> str | None:
    """The hash that the file `path` has; None where it has none, as after a power cut. Raises OSError."""
    head = os.fsdecode(read_bytes(path, HEX))
    return head if len(head) == HEX and not head.strip("0123456789abcdef") else None


def _forget(root: str, lost: list[str]) -> None:
    """The trail now tells of these lost entries."""
    for name in lost:
        try:
            os.unlink(f"{root}{LOST}/{name}")
        except OSError:  # It is told of again.
            continue


def _keep_head(root: str, head: str) -> None:
    """Failing to is no trouble: the next writer goes on from the last line, and `verify` says that the head is old."""
    try:
        make_private_folder(root + STATE)
        descriptor = os.open(root + HEAD, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, head.encode() + b"\n", 0)
        finally:
            os.close(descriptor)
    except OSError:
        return


def _count_lost(root: str, entry: dict[str, Json]) -> None:
    """Note that `entry` is not in the trail. Where that fails, too, syslog alone knows: the caller reports there."""
    try:
        make_private_folder(root + RUN)
        make_private_folder(root + LOST)
        path = f"{root}{LOST}/{entry.get('time')}_{os.getpid()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        return
