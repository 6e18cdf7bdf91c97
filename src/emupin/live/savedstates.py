"""States of a guest that libvirt keeps, each with a definition of its own: its managed save, and snapshots."""

from __future__ import annotations

import os

from emupin.base.errors import HostError, hint
from emupin.base.files import LIBVIRT_STATE


def told(root: str, name: str) -> str:
    """What there is of the guest `name`, in words; empty where there is nothing. Raises HostError."""
    saves = int(f"{name}.save" in _listed(f"{root}{LIBVIRT_STATE}/save"))
    snapshots = sum(each.endswith(".xml") for each in _listed(f"{root}{LIBVIRT_STATE}/snapshot/{name}"))
    found = ["a managed save"] * saves
    if snapshots:
        found.append("a snapshot" if snapshots == 1 else f"{snapshots} snapshots")
    return " and ".join(found)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        what = f"cannot be listed: {error.strerror}"
        raise HostError(folder, what, hint(error, "what libvirt keeps there is not known")) from None
