"""What syslog and the audit trail were told of a guest: what is wrong at each step of one start is told in full once.

A start calls the hook two or three times, each decides anew, and each fails alike. What was told is noted below `/run`,
for each guest by its name, until it is gone. Where that fails, it is told in full again.
"""

from __future__ import annotations

from emupin.base.digest import hex_digest
from emupin.base.files import RUN, make_private_folder, read_bytes, replace_file
from emupin.base.log import log
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FOLDER: Final = f"{RUN}/told"

FIRST: Final = ("migrate", "restore")
"""The operations that a start may begin with ahead of `prepare`."""

MOST: Final = 20
"""Texts that are remembered of a guest."""


def warn(root: str, name: str, operation: str, warnings: tuple[str, ...]) -> None:
    """Log those of the `warnings` that were not. The trail has them with each decision."""
    for each in warnings:
        if told_at(root, name, operation, each) is None:
            log(root, f"{name}: {each}", trouble=True)
            note(root, name, operation, each)


def in_short(root: str, name: str, operation: str, message: str) -> str:
    """`message`, or which earlier operation has told it."""
    earlier = told_at(root, name, operation, message)
    return message if earlier is None else f"guest {name}: the same failure as at {earlier}, see the audit trail"


def told_at(root: str, name: str, operation: str, text: str) -> str | None:
    """The operation, in this start or later, that has told `text`; None where none has."""
    if operation in FIRST:
        return None
    earlier = _read(root, name).get(hex_digest(os.fsencode(text)))
    return None if operation == "prepare" and earlier not in FIRST else earlier


def note(root: str, name: str, operation: str, text: str) -> None:
    """`text` has been told at `operation`, unless that was only to say when it was told before."""
    if told_at(root, name, operation, text) is not None:
        return
    digest = hex_digest(os.fsencode(text))
    known = {**_read(root, name), digest: operation}
    lines = [f"{digest} {known[digest]}\n" for digest in list(known)[-MOST:]]
    try:
        make_private_folder(root + RUN)
        make_private_folder(root + FOLDER)
        replace_file(_path(root, name), "".join(lines).encode(), durable=False)
    except OSError:
        return


def forget(root: str, name: str) -> None:
    """The guest is gone: what is wrong at its next start is told in full."""
    try:
        os.unlink(_path(root, name))
    except OSError:  # Mostly there is none.
        return


def _read(root: str, name: str) -> dict[str, str]:
    """The operations by the digests of what they have told."""
    try:
        words = read_bytes(_path(root, name)).decode("ascii", "replace").split()
    except OSError:
        return {}
    return dict(zip(words[::2], words[1::2]))


def _path(root: str, name: str) -> str:
    return f"{root}{FOLDER}/{hex_digest(os.fsencode(name))}"
