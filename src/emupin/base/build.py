"""Which build this is: the name that git gives the folder of these modules, worked out from the files as they are here.

Two commits of one version differ in it, and so do two nodes of which one was edited by hand. A checkout tells which
commit it is: `git rev-parse COMMIT:src/emupin`.
"""

from __future__ import annotations

import os

LIBRARY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHOWN = 12
"""Digits that are enough to tell builds apart."""

BYTE_CODE = "__pycache__"

PACKAGED = "/usr/lib/emupin"
"""Where the packages have the library."""


def reinstall(library: str = LIBRARY) -> str:
    """What puts this installation right, with all that belongs to it."""
    folder = os.path.dirname(library)
    if folder == PACKAGED:
        return "reinstall the package emupin"
    if os.path.basename(folder) in ("emupin", "src"):
        return "run install.sh"
    return "install the package emupin, or run install.sh of its source: only the command line is installed"


def build(folder: str = LIBRARY) -> str:
    """The first digits of git's id for the tree below `folder`. Raises OSError where a module cannot be read."""
    return _tree(folder).hex()[:SHOWN]


def _tree(folder: str) -> bytes:
    """Empty for a folder without a file: git knows of none, and an upgrade can leave one with byte code alone."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if entry.name != BYTE_CODE]
    lines: dict[bytes, bytes] = {}
    for entry in entries:
        name = os.fsencode(entry.name)
        if not entry.is_dir():
            with open(entry.path, "rb") as file:
                lines[name] = b"100644 %s\0%s" % (name, _id(b"blob", file.read()))
        elif inner := _tree(entry.path):
            lines[name + b"/"] = b"40000 %s\0%s" % (name, inner)  # git sorts a folder as if its name ended so.
    return _id(b"tree", b"".join(lines[name] for name in sorted(lines))) if lines else b""


def _id(kind: bytes, content: bytes) -> bytes:
    import hashlib  # It loads OpenSSL, which no other command needs.

    return hashlib.sha1(b"%s %d\0%s" % (kind, len(content), content), usedforsecurity=False).digest()
