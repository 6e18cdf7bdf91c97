"""A call with nothing on stdin: libvirt never makes one, but a site's own hook may that runs `qemu.d/*` itself.

libvirt runs those files too, so each of them runs twice; in such a loop the first one reads the domain XML, and those
behind it get nothing.
"""

from __future__ import annotations

from emupin.base.errors import HostError
from emupin.base.files import RUN, make_private_folder
from emupin.base.system import os

TOLD = f"{RUN}/empty-stdin"
"""There since the first such call after a boot."""


def complaint(root: str, name: str) -> tuple[HostError, bool]:
    """The error for the guest `name`, and whether an earlier call has reported it."""
    what = "nothing on stdin, where libvirt always writes it"
    hint = "if a hook of this site runs qemu.d/* itself, take that out: libvirt 6.5 and later run those files anyhow"
    return HostError(f"domain XML of {name}", what, hint), _is_told(root)


def _is_told(root: str) -> bool:
    try:
        make_private_folder(root + RUN)
        os.close(os.open(root + TOLD, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return True
    except OSError:  # Then it is told each time.
        return False
    return False
