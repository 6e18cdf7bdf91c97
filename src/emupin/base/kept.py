"""Policies and topologies that a decision was made from, kept by the SHA-256 of their bytes, for `audit replay`."""

from __future__ import annotations

from emupin.base.files import STATE, make_private_folder, replace_file
from emupin.base.system import os

POLICIES_KEPT, TOPOLOGIES_KEPT = "policies", "topologies"


def keep(root: str, kind: str, name: str, data: bytes) -> None:
    """Keep `data` as the file `name` of a `kind`, if it is not there yet. Raises OSError."""
    path = place(root, kind, name)
    if not os.path.exists(path):
        make_private_folder(root + STATE)
        make_private_folder(os.path.dirname(path))
        replace_file(path, data)


def place(root: str, kind: str, name: str) -> str:
    """Where the file `name` of a `kind` is kept."""
    return f"{root}{STATE}/{kind}/{name}"
