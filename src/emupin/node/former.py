"""What libvirt's definitions said before emupin recorded its pins: kept for each guest, so that it can be put back.

A pin that is there and that emupin has not recorded is somebody's: it is what stood there before, whatever was before
that. Kept below `/var/lib/emupin/former`, for the definitions outlive a boot.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import STATE, make_private_folder, read_bytes, replace_file
from emupin.base.frozen import Frozen
from emupin.base.jsonline import encode
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Domain

    Pins = Mapping[str, str | None]

FOLDER = f"{STATE}/former"
EMULATOR = "emulator"
"""Among the keys of Pins, of which the others are numbers of iothreads."""


class Former(Frozen):
    """What one definition of a guest said, and what emupin made of it: CPU lists as text, None where there is none."""

    before: Pins
    ours: Pins


def recall(root: str, uuid: str) -> dict[str, Former]:
    """By the definition, `live` or `persistent`. Raises HostError."""
    import json

    path = _path(root, uuid)
    try:
        found = json.loads(read_bytes(path))
        return {kind: Former(dict(each["before"]), dict(each["ours"])) for kind, each in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "root may read it") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise HostError(path, "is not what emupin writes", "remove it: what it remembers is lost") from None


def pins_of(guest: Domain) -> Pins:
    """The pins in a definition, as they are kept."""
    pins = {str(iothread): cpuset.format(cpus) for iothread, cpus in guest.iothreadpins.items()}
    return {**pins, **({EMULATOR: cpuset.format(guest.emulatorpin)} if guest.emulatorpin else {})}


def remember(root: str, uuid: str, kind: str, there: Pins, ours: Pins) -> None:
    """Note that emupin puts the pins `ours` where `there` are. Raises HostError."""
    known = recall(root, uuid)
    former = known.get(kind, Former({}, {}))
    before = {key: former.before[key] if _is_ours(key, there, former) else there.get(key) for key in ours}
    _keep(root, uuid, {**known, kind: Former({**former.before, **before}, {**former.ours, **ours})})


def _is_ours(key: str, there: Pins, former: Former) -> bool:
    return key in former.ours and key in former.before and there.get(key) == former.ours[key]


def to_put_back(there: Pins, former: Former) -> dict[str, str | None]:
    """The pins that stood before those of `there` that emupin has put there."""
    return {key: former.before[key] for key in former.ours if _is_ours(key, there, former)}


def forget(root: str, uuid: str, kind: str) -> None:
    """Raises HostError."""
    known = recall(root, uuid)
    if known.pop(kind, None):
        _keep(root, uuid, known)


def known_uuids(root: str) -> list[str]:
    """The guests of which something is remembered. Raises HostError."""
    try:
        return sorted(os.listdir(root + FOLDER))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(root + FOLDER, f"cannot be listed: {error.strerror}", "root may list it") from None


def _keep(root: str, uuid: str, known: dict[str, Former]) -> None:
    path = _path(root, uuid)
    plain: dict[str, Json] = {
        kind: {"before": dict(each.before), "ours": dict(each.ours)} for kind, each in known.items()
    }
    try:
        if not plain:
            os.unlink(path)
            return
        make_private_folder(root + STATE)
        make_private_folder(root + FOLDER)
        replace_file(path, encode(plain).encode("ascii"))
    except OSError as error:
        raise HostError(path, f"cannot be written: {error.strerror}", "free some space in /var/lib") from None


def _path(root: str, uuid: str) -> str:
    return f"{root}{FOLDER}/{uuid}"
