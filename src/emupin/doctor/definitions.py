"""libvirt's definitions: whether a guest can start with the pin that is there, and whether what should be there is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.errors import DomainError
from emupin.base.files import DEFINITIONS, read_bytes
from emupin.base.text import printable
from emupin.doctor.diagnosis import Diagnosis, ok, problem, unknown
from emupin.engine import topology
from emupin.engine.startable import stuck
from emupin.guest import domainxml
from emupin.guest.domain import command, element
from emupin.order import ORDERS
from emupin.recorder import TAKEN, WAIT_SECONDS, is_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine
    from emupin.engine.host import Host

MOMENT = 60.0
"""Seconds that a recording process may take to begin."""

CURE = "`emupin apply --yes {name}` puts the planned pin there; `{command}` another one"


def check_startable(machine: Machine) -> Iterator[Diagnosis]:
    """No definition has a pin that costs the guest its next start. Raises HostError."""
    facts = topology.read(machine.root)
    names = _defined(machine.root)
    if names is None:
        yield unknown(f"{machine.root}{DEFINITIONS} cannot be listed", "run it as root")
        return
    faults = [fault for name in names for fault in _faults(machine.root, name, facts)]
    yield from faults or [ok("libvirt can start every guest with the pin of its definition")]


def check_recorded(machine: Machine) -> Iterator[Diagnosis]:
    """No pin waits to be recorded for longer than it may, which says nothing where none does. Raises HostError."""
    late = 0
    for name in filter(is_order, machine.names(ORDERS)):
        ordered = machine.status(f"{ORDERS}/{name}")
        patience = WAIT_SECONDS if name.startswith(TAKEN) else MOMENT
        late += ordered is not None and ordered.st_mtime < machine.now - patience - MOMENT
    if late:
        what = "1 pin waits" if late == 1 else f"{late} pins wait"
        cure = "`emupin apply --all --yes` records pins; look in syslog for why the recording process ended"
        yield problem(f"{what} in {machine.path(ORDERS)} to be recorded in libvirt's definitions, for too long", cure)


def _defined(root: str) -> list[str] | None:
    """The names of the defined guests; None where they may not be looked at."""
    try:
        return sorted(name[:-4] for name in os.listdir(root + DEFINITIONS) if name.endswith(".xml"))
    except FileNotFoundError:
        return []
    except OSError:
        return None


def _faults(root: str, name: str, facts: Host) -> Iterator[Diagnosis]:
    path = f"{root}{DEFINITIONS}/{name}.xml"
    try:
        guest = domainxml.read(read_bytes(path), path, frozenset())
    except FileNotFoundError:  # Undefined meanwhile.
        return
    except OSError as error:
        yield unknown(f"{path}: cannot be read: {error.strerror}", "run it as root")
        return
    except DomainError as error:
        yield unknown(f"{error.where}: {error.what}", error.hint)
        return
    shown, pins = printable(name), guest.pins
    for key, why in stuck(guest, facts).items():
        cure = CURE.format(name=shown, command=command(key, shown, "CPUS"))
        what = f"{element(key)} {cpuset.format(pins[key])}"
        yield problem(f"guest {shown} cannot start with its {what}: {why}", cure)
