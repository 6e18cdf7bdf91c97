"""Definitions that are to be corrected once a start has failed: marks that `prepare` leaves for `release`."""

from __future__ import annotations

from emupin.base.files import RUN, make_private_folder
from emupin.base.system import os

MARKS = f"{RUN}/impossible"
"""A folder with a file for each guest, by UUID."""


def mark(root: str, uuid: str) -> None:
    """Have the definition of the guest `uuid` corrected. Raises OSError."""
    make_private_folder(root + RUN)
    make_private_folder(root + MARKS)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(f"{root}{MARKS}/{uuid}", flags, 0o600))


def take(root: str, uuid: str) -> bool:
    """Whether the guest `uuid` had a mark; it has none afterwards."""
    try:
        os.unlink(f"{root}{MARKS}/{uuid}")
    except OSError:  # Mostly there is none; one that stays asks in vain for what is done already.
        return False
    return True
