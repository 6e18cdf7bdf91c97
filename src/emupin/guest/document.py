"""A domain XML as bytes: from a file, a pipe or stdin, and never more of it than a domain XML may have."""

from __future__ import annotations

from emupin.base.files import read_stream
from emupin.base.streams import STDIN
from emupin.base.system import os
from emupin.guest.xmltree import LARGEST


def read_descriptor(descriptor: int, expected: int = 0) -> bytes:
    """All that comes, up to a byte more than a domain XML may have. Raises OSError.

    `expected` is the size of a regular file: one call, for a byte more than that, then reads it and sees its end.
    """
    first = os.read(descriptor, min(expected, LARGEST) + 1) if expected else b""
    if first and len(first) == expected:
        return first
    return first + read_stream(descriptor, LARGEST + 1 - len(first))


def read_file(path: str) -> bytes:
    """The document in `path`, which may also be a pipe, or on stdin where that is `-`. Raises OSError."""
    if path == "-":
        return read_descriptor(STDIN)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(descriptor)
    finally:
        os.close(descriptor)
