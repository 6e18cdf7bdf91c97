"""Takes back what emupin has recorded: what stood in libvirt's definitions before, and live threads there, too.

A pin that is no longer the one that emupin put there belongs to somebody else, and stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin import __version__
from emupin.base import cpuset
from emupin.base.errors import EmupinError, HostError
from emupin.base.files import DEFINITIONS
from emupin.base.log import log
from emupin.engine import topology
from emupin.guest import domainxml
from emupin.guest.threads import check_process
from emupin.live.alignment import is_running, live_xml, read_file
from emupin.live.drift import LIVE, PERSISTENT
from emupin.node import former
from emupin.node.claims import Ledger
from emupin.node.enforce import enforce
from emupin.trail import entries, writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Domain, Status
    from emupin.node.former import Pins

    Cpus = frozenset[int]
    PutBack = Callable[[str, str, Mapping[str, Cpus | None]], None]

KINDS = {"live": LIVE, "persistent": PERSISTENT}


@dataclass(frozen=True)
class Means:
    """What changes the world: `os.sched_setaffinity`, and libvirt's definitions by UUID and kind."""

    set_affinity: Callable[[int, Cpus], None]
    put_back: PutBack


@dataclass(frozen=True)
class Undone:
    """One guest, and what there is to take back: the pins before ours and ours, by definition and thread."""

    name: str
    changes: Mapping[str, Mapping[str, tuple[str | None, str]]] = field(default_factory=dict)
    error: str = ""


def undo(root: str, names: Sequence[str], means: Means | None) -> Iterator[Undone]:
    """What is taken back of each guest; `means` None changes nothing. One guest's trouble stops no other."""
    for name in names:
        changes: dict[str, Mapping[str, tuple[str | None, str]]] = {}
        try:
            for kind, guest, status in _definitions(root, name):
                pins = _to_put_back(root, kind, guest)
                if pins:
                    ours = former.pins_of(guest)
                    changes[KINDS[kind]] = {key: (before, ours[key] or "") for key, before in pins.items()}
                    if means:
                        _put_back(root, kind, guest, status, pins, means)
            yield Undone(name, changes)
        except EmupinError as error:
            yield Undone(name, changes, str(error))


def _definitions(root: str, name: str) -> Iterator[tuple[str, Domain, Status | None]]:
    """The live and the persistent definition of a guest, as far as it has them. Raises HostError, DomainError."""
    if is_running(root, name):
        _, status = live_xml(root, name)
        check_process(root, status.pid, status.domain.uuid or "")
        yield "live", status.domain, status
    path = f"{root}{DEFINITIONS}/{name}.xml"
    if os.path.exists(path):
        yield "persistent", domainxml.read(read_file(path), path, frozenset()), None


def _to_put_back(root: str, kind: str, guest: Domain) -> Pins:
    """Raises HostError."""
    known = former.recall(root, guest.uuid or "").get(kind)
    return former.to_put_back(former.pins_of(guest), known) if known else {}


def _put_back(root: str, kind: str, guest: Domain, status: Status | None, pins: Pins, means: Means) -> None:
    """Raises EmupinError."""
    uuid = guest.uuid or ""
    wanted = {key: None if before is None else cpuset.parse(before) for key, before in pins.items()}
    if status:  # A running guest's pin cannot be taken out: its threads get what they would have without one.
        host = topology.read(root)
        free = guest.unpinned or host.balanced(host.within(guest.partition))
        wanted = {key: cpus or free for key, cpus in wanted.items()}
        emulator = wanted.get(former.EMULATOR)
        if emulator:
            enforce(root, status, emulator, means.set_affinity)
    means.put_back(uuid, kind, wanted)
    former.forget(root, uuid, kind)
    if status:
        with Ledger(root, None) as ledger:
            ledger.release(uuid)
            ledger.save()
    _audit(root, kind, guest, wanted)


def _audit(root: str, kind: str, guest: Domain, wanted: Mapping[str, Cpus | None]) -> None:
    """A trail that cannot be written to keeps nothing from being taken back: syslog has it."""
    ours = former.pins_of(guest)
    text = {key: cpuset.text(cpus) for key, cpus in wanted.items()}
    before, after = ours.get(former.EMULATOR), text.get(former.EMULATOR, ours.get(former.EMULATOR))
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
        "reason": f"{kind} definition: what stood there before emupin's pin was put back",
        "warnings": [],
        "outcome": "recorded",
        "diff": [
            f"{sign}{kind} {key}: {pin}" for key in text for sign, pin in (("-", ours.get(key)), ("+", text[key]))
        ],
        "policy": None,
        "emupin": __version__,
    }
    log(root, f"{guest.name}: undo: {kind} definition: emulatorpin {before or 'none'} -> {after or 'none'}")
    try:
        writer.append(root, entry)
    except HostError as error:
        log(root, f"undo: {error}", trouble=True)
