"""Which guest uses which CPU of a host: what a picture of it, a page and JSON show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.engine.situation import Others

if TYPE_CHECKING:
    from emupin.engine.host import Host

    Cpus = frozenset[int]


@dataclass(frozen=True)
class Mark:
    """All that a picture says about one CPU."""

    reserved: bool = False
    pool: bool = False
    isolated: bool = False
    vcpus: tuple[int, ...] = ()
    """Of the guest that the picture is about."""
    foreign: tuple[str, ...] = ()
    """The UUIDs of other guests that have pinned vCPUs here; likewise below."""
    floating: tuple[str, ...] = ()
    """Their vCPUs float, and may run here."""
    iothreads: tuple[str, ...] = ()
    dedicated: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    """Their emulator threads are here, and leave room for others."""
    interrupts: bool = False
    """Those of network cards are handled here."""
    before: bool = False
    """The guest's emulator threads were here, …"""
    after: bool = False
    """… and this is where they go."""

    @property
    def occupied(self) -> bool:
        return bool(self.vcpus or self.before or self.after) or any(
            getattr(self, field) for field in OF_OTHERS.values()
        )


NO_CPUS: Cpus = frozenset()

OF_OTHERS = {
    "vcpus": "foreign",
    "floating": "floating",
    "iothreads": "iothreads",
    "dedicated": "dedicated",
    "shared": "shared",
}
"""The fields of a Mark by those of Others."""


def marks(
    host: Host,
    reserved: Cpus = NO_CPUS,
    pool: Cpus = NO_CPUS,
    others: Others | None = None,
    pins: Mapping[int, Cpus] | None = None,
    before: Cpus = NO_CPUS,
    after: Cpus = NO_CPUS,
) -> dict[int, Mark]:
    """The mark of every online CPU; `pins` are the CPUs of the guest's vCPUs."""
    pins = pins or {}
    owners = {field: _owners(getattr(others or Others(), use)) for use, field in OF_OTHERS.items()}
    return {
        cpu: Mark(
            reserved=cpu in reserved,
            pool=cpu in pool,
            isolated=cpu in host.isolated,
            vcpus=tuple(vcpu for vcpu, cpus in sorted(pins.items()) if cpu in cpus),
            interrupts=cpu in host.interrupts,
            before=cpu in before,
            after=cpu in after,
            **{field: by_cpu.get(cpu, ()) for field, by_cpu in owners.items()},
        )
        for cpu in host.online
    }


def _owners(by_guest: Mapping[str, Cpus]) -> dict[int, tuple[str, ...]]:
    """UUIDs by CPU, from CPUs by UUID."""
    by_cpu: dict[int, tuple[str, ...]] = {}
    for uuid, cpus in by_guest.items():
        for cpu in cpus:
            by_cpu[cpu] = (*by_cpu.get(cpu, ()), uuid)
    return by_cpu
