"""What libvirt's definitions said before emupin recorded its pins: kept for each guest, so that it can be put back.

A pin that is there and that emupin has not recorded is somebody's: it is what stood there before, whatever was before
that. What is kept of the live definition counts for that run of the guest.
Kept below `/var/lib/emupin/former`, for the definitions outlive a boot.
"""

from __future__ import annotations

import contextlib

from emupin.base import cpuset
from emupin.base.errors import DomainError, HostError
from emupin.base.files import STATE, make_private_folder, read_bytes, replace_file
from emupin.base.frozen import Frozen
from emupin.base.jsonline import encode
from emupin.base.system import os
from emupin.guest.threads import read_status_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Domain

    Pins = Mapping[str, str | None]

LIVE, PERSISTENT = "live", "persistent"
"""Definitions of a guest."""

FOLDER = f"{STATE}/former"

START = 19
"""Of the fields of `/proc/PID/stat` behind the last `)`: when the process was started, in ticks since the boot."""


class Former(Frozen):
    """What one definition of a guest said, and what emupin made of it: CPU lists as text, None where there is none."""

    before: Pins
    ours: Pins
    run: str = ""
    """Of the guest, for its live definition; empty for the persistent one, and in files of before there was any."""
    was: Mapping[str, str | None] = {}
    """What emupin had put there ahead of `ours`, until libvirt has taken those: it may have refused."""
    undone: bool = False
    """What stood there before was put back: known still, for a saved state may bring emupin's pins again."""


def run_of(root: str, name: str) -> str:
    """What tells this run of the guest `name` from a later one: its process. Empty where it does not run."""
    try:
        pid = read_status_file(root, name).pid
        fields = read_bytes(f"{root}/proc/{pid}/stat").rpartition(b")")[2].split()
    except (OSError, HostError, DomainError):  # Or where that cannot be told: nothing counts then.
        return ""
    return f"{pid} {int(fields[START])}"


def recall(root: str, uuid: str) -> dict[str, Former]:
    """By the definition, LIVE or PERSISTENT. Raises HostError."""
    import json

    path = _path(root, uuid)
    try:
        found = json.loads(read_bytes(path))
        return {
            kind: Former(
                dict(each["before"]),
                dict(each["ours"]),
                str(each.get("run", "")),
                dict(each.get("was", {})),
                bool(each.get("undone", False)),
            )
            for kind, each in found.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "run it as root") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise HostError(path, "is not what emupin writes", "remove it: what it remembers is lost") from None


def counting(known: Mapping[str, Former], run: str) -> dict[str, Former]:
    """What is `known` of the definitions that the guest has in this `run`.

    One in which nothing was recorded began with what the persistent definition said: with what emupin put there.
    """
    found = {kind: each for kind, each in known.items() if kind == PERSISTENT or (run and each.run == run)}
    if run and PERSISTENT in found:
        found.setdefault(LIVE, found[PERSISTENT].replace(run=run))
    return found


def pins_of(guest: Domain) -> Pins:
    """The pins in a definition, as they are kept."""
    return {key: cpuset.format(cpus) for key, cpus in guest.pins.items()}


def remember(root: str, uuid: str, kind: str, there: Pins, ours: Pins, run: str) -> None:
    """Note that emupin is to put the pins `ours` where `there` are, in a definition of the guest in this `run`.

    Raises HostError.
    """
    with _alone(root):
        known = counting(recall(root, uuid), run)
        former = known.get(kind, Former({}, {}))
        kept = [key for key in former.before if _stays_known(key, there, ours, former)]
        before = {**{key: there.get(key) for key in ours}, **{key: former.before[key] for key in kept}}
        was = {key: there.get(key) for key in kept if key in ours}
        ours = {**{key: there.get(key, former.ours[key]) for key in kept if key not in ours}, **ours}
        _keep(root, uuid, {**known, kind: Former(before, ours, run if kind == LIVE else "", was)})


def confirm(root: str, uuid: str, kind: str) -> None:
    """Note that libvirt has taken what `remember` was told of. Raises HostError."""
    with _alone(root):
        known = recall(root, uuid)
        if kind in known and known[kind].was:
            _keep(root, uuid, {**known, kind: known[kind].replace(was={})})


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
    """Nobody else changes what is kept meanwhile: `apply` and a recording process may be at one guest.

    Raises HostError.
    """
    import fcntl

    try:
        make_private_folder(root + STATE)
        make_private_folder(root + FOLDER)
        folder = os.open(root + FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(root + FOLDER, f"cannot be used: {error.strerror}", "run it as root") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _stays_known(key: str, there: Pins, ours: Pins, former: Former) -> bool:
    """Whether what stood before the pin `key` is known still once emupin has put `ours` where `there` are.

    A pin that is to be another was emupin's, or is somebody's from now on: after it was undone, too, when nobody can
    tell a saved state's from one that was set by hand. Of the rest a saved state may bring back what is not there now.
    """
    if key in ours:
        return not former.undone and _is_ours(key, there, former)
    return former.undone or key not in there or _is_ours(key, there, former)


def _is_ours(key: str, there: Pins, former: Former) -> bool:
    if key not in former.ours or key not in former.before:
        return False
    pin = there.get(key)
    return pin == former.ours[key] or (key in former.was and pin == former.was[key])


def to_put_back(there: Pins, former: Former) -> dict[str, str | None]:
    """The pins that stood before those of `there` that emupin has put there."""
    return {
        key: before
        for key, before in former.before.items()
        if _is_ours(key, there, former) and before != there.get(key)
    }


def stood(root: str, guest: Domain) -> dict[str, frozenset[int] | None]:
    """The pins that emupin has put into the persistent definition `guest`, each with the CPUs that were there before.

    Raises HostError.
    """
    there = pins_of(guest)
    known = recall(root, guest.uuid or "").get(PERSISTENT) if there else None
    before = to_put_back(there, known) if known and not known.undone else {}
    # One that emupin has taken out is not there: what it was is for `apply --undo` to put back.
    return {key: cpuset.parse(pin) if pin else None for key, pin in before.items() if key in there}


def diff(kind: str, changes: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """Pins of the definition of a `kind` that were `changes`, each from one to another, as lines of a diff."""
    return [f"{sign}{kind} {key}: {pin}" for key, pins in changes.items() for sign, pin in zip("-+", pins) if pin]


def forget(root: str, uuid: str, kind: str, run: str) -> None:
    """Keep of what counts in this `run` all but one definition's, and what was undone. Raises HostError."""
    with _alone(root):
        known = counting(recall(root, uuid), run)
        _keep(root, uuid, {key: each for key, each in known.items() if key != kind and not each.undone})


def mark_undone(root: str, uuid: str, kind: str, run: str) -> None:
    """Note of one definition that what stood there before was put back. Raises HostError."""
    with _alone(root):
        known = counting(recall(root, uuid), run)
        _keep(root, uuid, {**known, kind: known[kind].replace(undone=True)})


def keep_only(root: str, uuids: frozenset[str]) -> None:
    """Forget all guests but those with these `uuids`. Raises HostError."""
    try:
        for uuid in os.listdir(root + FOLDER):
            if uuid not in uuids and "." not in uuid:  # Else it is being written.
                _remove(_path(root, uuid))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(root + FOLDER, f"cannot be tidied: {error.strerror}", "run it as root") from None


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # Another process was first.
        os.unlink(path)


def _keep(root: str, uuid: str, known: dict[str, Former]) -> None:
    path = _path(root, uuid)
    plain: dict[str, Json] = {
        kind: {
            "before": dict(each.before),
            "ours": dict(each.ours),
            "run": each.run,
            "was": dict(each.was),
            "undone": each.undone,
        }
        for kind, each in known.items()
    }
    try:
        if not plain:
            _remove(path)
            return
        replace_file(path, encode(plain).encode("ascii"))
    except OSError as error:
        raise HostError(path, f"cannot be written: {error.strerror}", "free some space in /var/lib") from None


def _path(root: str, uuid: str) -> str:
    return f"{root}{FOLDER}/{uuid}"
