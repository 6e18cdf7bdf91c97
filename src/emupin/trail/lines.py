"""The files of an audit trail, rotated and compressed ones included: lines from the oldest to the newest."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import IO, Any

from emupin.base.errors import HostError
from emupin.base.files import AUDIT
from emupin.base.text import printable

LONGEST = 64 << 20
"""Bytes of a line; what is longer comes in pieces, none of which is an entry."""

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""By the end of a file's name."""

ROTATED = re.compile(r"(?:\.(?P<age>\d{1,9})|[-.](?P<date>\d[\d-]{5,30}))(?P<rest>\.backup)?(?:\.(?:gz|bz2|xz))?")
"""What logrotate appends to a name: the file's age, or with `dateext` the date; then what compressed it."""

MISSING = "name the files of the trail, or run this on the host itself"


class DamagedError(HostError):
    """A compressed file that is not whole."""


@dataclass(frozen=True)
class Line:
    """One line of the trail, its line end included if it has one."""

    file: str
    number: int
    """From 1."""
    data: bytes

    @property
    def place(self) -> str:
        return f"{printable(self.file)}:{self.number}"

    @property
    def digest(self) -> str:
        """The hash by which the next line names this one."""
        return sha256(self.data).hexdigest()


def find(root: str) -> list[str]:
    """The files of the trail below `root`, the oldest first. Raises HostError where the folder cannot be read."""
    folder, name = os.path.split(root + AUDIT)
    try:
        present = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(folder, f"cannot be read: {error.strerror}", "run it as root") from None
    ages = {each: found for each in whole(present) if (found := age(each, name))}
    return [os.path.join(folder, each) for each in sorted(ages, key=lambda each: ages[each])]


def whole(names: Sequence[str]) -> Iterator[str]:
    """Those of a folder's files that nobody is compressing right now: logrotate removes the plain file last."""
    for each in names:
        plain, end = os.path.splitext(each)
        if end not in OPENERS or plain not in names:
            yield each


def installed(root: str) -> list[str]:
    """As `find`. Raises HostError also where there is no trail."""
    paths = find(root)
    if not paths:
        hint = "no decision was made yet: the hook writes an entry when a guest that a rule matches starts"
        raise HostError(root + AUDIT, "there is no audit trail", hint)
    return paths


def age(file: str, name: str) -> tuple[int, str, int] | None:
    """What sorts the files by age, the present one last; None for a file that is none of the trail."""
    if file == name:
        return 2, "", 0
    match = ROTATED.fullmatch(file[len(name) :]) if file.startswith(name) else None
    if match is None:
        return None
    return (1, "", -int(match["age"])) if match["age"] and len(match["age"]) < 6 else (0, file[len(name) :], 0)


def is_rotated(path: str) -> bool:
    """Whether older files may have been deleted, as the rotation does."""
    return not path.endswith(".jsonl")


def read(paths: Iterable[str]) -> Iterator[Line]:
    """Every line of all files. Raises HostError where one cannot be read or decompressed."""
    for path in paths:
        yield from read_file(path)


def identity(path: str) -> int | None:
    """What tells a file from another one that a rotation gives its name; None where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def read_file(path: str, known: int | None = None) -> Iterator[Line]:
    """Every line of one file, the `known` one if given. Raises HostError, DamagedError after what could be read."""
    number = 0
    if known not in (None, identity(path)):
        hint = "run the command again"
        raise HostError(printable(path), "was rotated while the trail was read: the rest is not shown", hint)
    try:
        with OPENERS.get(os.path.splitext(path)[1], open)(_lasting(path), "rb") as file:
            while data := file.readline(LONGEST):
                number += 1
                yield Line(path, number, data)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise HostError(printable(path), f"cannot be read: {error.strerror}", MISSING) from None
        place = f"{printable(path)}:{number + 1}"
        raise DamagedError(place, "cannot be decompressed from here", "restore the file from a copy") from None


def _lasting(path: str) -> str:
    """`path`, or what has all of it for every further pass where that is a pipe. Raises OSError."""
    return f"/proc/self/fd/{_spool(path).fileno()}" if stat.S_ISFIFO(os.stat(path).st_mode) else path


@functools.cache
def _spool(path: str) -> IO[bytes]:
    """What comes from a pipe, in a file without a name. Raises OSError."""
    import shutil
    import tempfile

    spool = tempfile.TemporaryFile()  # noqa: SIM115
    with open(path, "rb") as pipe:
        shutil.copyfileobj(pipe, spool)
    spool.flush()
    return spool


def entry(data: bytes) -> dict[str, Any] | None:
    """The entry that a line holds; None where it is not what the writer writes, or lacks its line end."""
    if not data.endswith(b"\n"):
        return None
    try:
        value = json.loads(
            data.decode("ascii"), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_link(value.get("previous", 0)) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError: with a key twice, two readers would read two things."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is repeated")
    return values


def _no_float(text: str) -> None:
    raise ValueError(f"{text}: no entry has such a number")


def _is_link(value: object) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)


def text_of(value: Mapping[str, Any], key: str) -> str:
    """The text of a key, fit for a terminal; empty where it has none."""
    text = value.get(key)
    return printable(text) if isinstance(text, str) else ""
