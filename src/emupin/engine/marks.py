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
    foreign: str | None = None
    """The UUID of another guest that has a vCPU here; likewise below."""
    dedicated: str | None = None
    shared: str | None = None
    """Another guest's emulator threads are here, and leave room for others."""
    before: bool = False
    """The guest's emulator threads were here, …"""
    after: bool = False
    """… and this is where they go."""

    @property
    def occupied(self) -> bool:
        return bool(self.vcpus or self.foreign or self.dedicated or self.shared or self.before or self.after)


NO_CPUS: Cpus = frozenset()


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
    others = others or Others()
    pins = pins or {}
    return {
        cpu: Mark(
            cpu in reserved,
            cpu in pool,
            cpu in host.isolated,
            tuple(vcpu for vcpu, cpus in sorted(pins.items()) if cpu in cpus),
            others.vcpus.get(cpu),
            others.dedicated.get(cpu),
            others.shared.get(cpu),
            cpu in before,
            cpu in after,
        )
        for cpu in host.online
    }
