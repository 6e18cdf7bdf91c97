"""libvirt's own files of guests: its status files of those that run, and its definitions."""

from __future__ import annotations

import os

from emupin.base.errors import EmupinError
from emupin.base.files import DEFINITIONS, LIBVIRT_RUN
from emupin.guest.document import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = (LIBVIRT_RUN, DEFINITIONS)
"""Running guests first: theirs is what holds now."""

SUFFIX = ".xml"


def by_name(name: str, root: str) -> str | None:
    """The XML of the guest called `name`; None where there is none."""
    found = (f"{root}{folder}/{name}{SUFFIX}" for folder in FOLDERS)
    return next((path for path in found if os.path.isfile(path)), None)


def by_uuid(text: str, root: str) -> str | None:
    """The XML of the guest with the UUID `text`, with or without its hyphens. Raises EmupinError."""
    digits = _digits(text)
    if len(digits) != 32 or digits.strip("0123456789abcdef"):
        return None
    for path in paths(root):
        if _digits(_uuid(path)) == digits:
            return path
    return None


def _digits(uuid: str) -> str:
    return uuid.replace("-", "").strip().lower()


def _uuid(path: str) -> str:
    """The UUID in one of libvirt's own files, found without reading all of it; empty where there is none."""
    try:
        _, start, rest = read_file(path).partition(b"<uuid>")
    except FileNotFoundError:  # It ended meanwhile.
        return ""
    except OSError as error:
        raise EmupinError(path, f"cannot be read: {error.strerror}", "run it as root") from None
    return rest[:64].partition(b"<")[0].decode("ascii", "replace") if start else ""


def paths(root: str) -> Iterator[str]:
    """libvirt's files of running and of defined guests. Raises EmupinError."""
    for folder in FOLDERS:
        try:
            names = sorted(os.listdir(root + folder))
        except FileNotFoundError:
            continue  # libvirt has not run yet, or nothing is defined.
        except OSError as error:
            raise EmupinError(root + folder, f"cannot be listed: {error.strerror}", "run it as root") from None
        yield from (f"{root}{folder}/{name}" for name in names if name.endswith(SUFFIX))


def name_of(root: str, uuid: str) -> str | None:
    """The name of the guest with this UUID; None where there is none, or who asks may not look."""
    try:
        path = by_uuid(uuid, root)
    except EmupinError:
        return None
    return path and os.path.basename(path)[: -len(SUFFIX)]
