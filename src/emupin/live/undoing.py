"""Takes back what emupin has recorded: what stood in libvirt's definitions before, and live threads there, too.

A pin that is no longer the one that emupin put there belongs to somebody else, and stays. libvirt is asked first: where
it does not answer, nothing has changed. From a managed save or a snapshot emupin's pins may come again: what stood
there before is remembered as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from emupin import __version__
from emupin.base import cpuset
from emupin.base.errors import EmupinError, HostError
from emupin.base.files import DEFINITIONS
from emupin.base.log import log
from emupin.engine import topology
from emupin.engine.startable import obstacle
from emupin.guest import domainxml
from emupin.guest.domain import EMULATOR
from emupin.guest.threads import check_process
from emupin.live import drift, savedstates
from emupin.live.alignment import is_running, live_xml, read_file
from emupin.node import former
from emupin.node.claims import Ledger
from emupin.node.enforce import enforce
from emupin.node.former import LIVE, PERSISTENT
from emupin.trail import entries, writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Domain, Status
    from emupin.node.former import Pins

    Cpus = frozenset[int]
    Wanted = Mapping[str, Cpus | None]
    PutBack = Callable[[str, str, Wanted], None]

KINDS = {LIVE: drift.LIVE, PERSISTENT: drift.PERSISTENT}


@dataclass(frozen=True)
class Means:
    """What changes the world: `os.sched_setaffinity`, and libvirt's definitions by UUID and kind."""

    set_affinity: Callable[[int, Cpus], None]
    put_back: PutBack


@dataclass(frozen=True)
class Undone:
    """One definition of a guest, and what there is to take back: by thread, the pin that it gets, and ours."""

    name: str
    where: str
    changes: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    saved: str = ""
    """States of the guest that libvirt keeps, in words; they may bring emupin's pins again."""
    done: bool = False
    error: str = ""
    """What went wrong; where it is `done` all the same, with the threads."""


def undo(root: str, names: Sequence[str], means: Means | None) -> Iterator[Undone]:
    """What is taken back of each definition, where there is any; `means` None changes nothing.

    The trouble of one definition stops no other.
    """
    for name in names:
        run = former.run_of(root, name)
        for kind, find in ((LIVE, _live), (PERSISTENT, _persistent)):
            try:
                guest, status = find(root, name)
                result = _look(root, kind, guest, status, run) if guest else None
                if result and guest:
                    yield _put_back(root, kind, guest, status, result, run, means)
            except EmupinError as error:
                yield Undone(name, KINDS[kind], error=str(error))


def _live(root: str, name: str) -> tuple[Domain | None, Status | None]:
    """Raises HostError, DomainError."""
    if not is_running(root, name):
        return None, None
    _, status = live_xml(root, name)
    check_process(root, status.pid, status.domain.uuid or "")
    return status.domain, status


def _persistent(root: str, name: str) -> tuple[Domain | None, None]:
    """Raises HostError, DomainError."""
    path = f"{root}{DEFINITIONS}/{name}.xml"
    return (domainxml.read(read_file(path), path, frozenset()) if os.path.exists(path) else None), None


def _look(root: str, kind: str, guest: Domain, status: Status | None, run: str) -> Undone | None:
    """What there is to take back; None where there is nothing. A pin that libvirt cannot start a guest with stays out.

    Raises HostError.
    """
    known, there = former.counting(former.recall(root, guest.uuid or ""), run), former.pins_of(guest)
    before = former.to_put_back(there, known[kind]) if kind in known else {}
    if not before:
        return None
    host, free = topology.read(root), None
    if status:  # A running guest's pin cannot be taken out: it gets what it would have.
        free = cpuset.text(guest.unpinned or host.balanced(host.within(guest.partition)))
    found = {key: pin if pin and not obstacle(cpuset.parse(pin), guest, host) else free for key, pin in before.items()}
    changes = {key: (pin, there.get(key)) for key, pin in found.items() if pin != there.get(key)}
    return Undone(guest.name, KINDS[kind], changes, savedstates.told(root, guest.name)) if changes else None


def _put_back(
    root: str, kind: str, guest: Domain, status: Status | None, seen: Undone, run: str, means: Means | None
) -> Undone:
    if means is None:
        return seen
    uuid = guest.uuid or ""
    pins = {key: before for key, (before, _) in seen.changes.items()}
    wanted = {key: None if pin is None else cpuset.parse(pin) for key, pin in pins.items()}
    try:
        means.put_back(uuid, kind, wanted)
        seen = replace(seen, done=True)
        (former.mark_undone if seen.saved else former.forget)(root, uuid, kind, run)
        if status:
            _release(root, status, wanted.get(EMULATOR), means)
    except EmupinError as error:
        seen = replace(seen, error=str(error))
    _audit(root, kind, guest, pins if seen.done else {}, seen.error)
    return seen


def _release(root: str, status: Status, cpus: Cpus | None, means: Means) -> None:
    """Have the threads follow: libvirt itself moves the main one, or their cgroup. Raises EmupinError."""
    try:
        if cpus:
            enforce(root, status, cpus, means.set_affinity).check(status.domain.name, cpus)
    finally:
        with Ledger(root, None) as ledger:
            ledger.release(status.domain.uuid or "")
            ledger.save()


def _audit(root: str, kind: str, guest: Domain, done: Pins, trouble: str) -> None:
    """A trail that cannot be written to keeps nothing from being taken back: syslog has it."""
    there = former.pins_of(guest)
    before = there.get(EMULATOR)
    after = done.get(EMULATOR, before)
    why = f"{kind} definition: " + ("what stood there before emupin's pin was put back" if done else trouble)
    entry: dict[str, Json] = {
        "time": entries.now(),
        "host": os.uname().nodename,
        "op": "undo",
        "uuid": guest.uuid,
        "name": guest.name,
        "rule": None,
        "placement": None,
        "before": before,
        "after": after,
        "reason": why,
        "warnings": [trouble] if done and trouble else [],
        "outcome": "recorded" if done else "failed",
        "diff": former.diff(kind, {key: (there.get(key), pin) for key, pin in done.items()}),
        "policy": None,
        "emupin": __version__,
    }
    change = f": emulatorpin {before or 'none'} -> {after or 'none'}" if done else ""
    log(root, f"{guest.name}: undo: {kind} definition{change}" + (f": {trouble}" if trouble else ""), bool(trouble))
    try:
        writer.append(root, entry)
    except HostError as error:
        log(root, f"undo: {error}", trouble=True)
