"""Every check there is, in the order of the way that a call takes: libvirt, hook, interpreter, policy, CPUs, trail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emupin.base.errors import EmupinError
from emupin.doctor import cpus, definitions, hook, kernel, libvirtd, policy, python, security, trail
from emupin.doctor.diagnosis import UNKNOWN, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from emupin.doctor.machine import Machine

    Check = Callable[[Machine], Iterable[Diagnosis]]

CHECKS: dict[str, tuple[Check, ...]] = {
    "libvirt": (libvirtd.check_daemon, libvirtd.check_version, libvirtd.check_reload),
    "hook": (hook.check_place, hook.check_file, hook.check_neighbours),
    "security": (security.check_apparmor, security.check_selinux),
    "python": (python.check_interpreter, python.check_library, python.check_modules),
    "policy": (policy.check_policy,),
    "cpus": (cpus.check_online, cpus.check_isolated, cpus.check_nova),
    "guests": (definitions.check_startable, definitions.check_recorded),
    "kernel": (kernel.check_cgroups, kernel.check_vhost, kernel.check_threads),
    "trail": (trail.check_folders, trail.check_trail, trail.check_rotated, trail.check_kept, trail.check_currency),
    "clock": (trail.check_clock,),
}


def examine(machine: Machine) -> list[Diagnosis]:
    """What every check has found, by area."""
    return [
        replace(finding, area=area)
        for area, checks in CHECKS.items()
        for each in checks
        for finding in _run(each, machine)
    ]


def _run(check: Check, machine: Machine) -> Iterator[Diagnosis]:
    """The check's findings. What it cannot read it cannot judge."""
    try:
        yield from check(machine)
    except EmupinError as error:
        yield Diagnosis(UNKNOWN, f"{error.where}: {error.what}", error.hint)
