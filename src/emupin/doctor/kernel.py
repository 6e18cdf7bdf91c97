"""What this kernel does with cgroups and threads that an administrator should know."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.errors import EmupinError
from emupin.base.files import LIBVIRT_RUN
from emupin.doctor.diagnosis import Diagnosis, ok, warning
from emupin.guest.cgroups import emulator_group
from emupin.guest.threads import (
    EMULATOR,
    KERNEL_HELPERS,
    VCPU,
    check_process,
    read_status_file,
    read_threads,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine
    from emupin.guest.domain import Status
    from emupin.guest.threads import Thread

MOUNTS = "/proc/self/mountinfo"
RELEASE = "/proc/sys/kernel/osrelease"

MOVES_VHOST = (5, 16)
"""The first kernel that puts vhost workers into the cgroups of their owner on cgroup v2."""
KEEPS_MASKS = (6, 2)
"""The first kernel that keeps the mask that a thread once asked for."""

SHOWN = 3
"""How many guests are named in one finding."""


def version(machine: Machine) -> tuple[int, ...]:
    """The kernel's version; (0, 0) where it is not told. Raises HostError."""
    found = re.match(r"(\d+)\.(\d+)", machine.text(RELEASE) or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def cpuset_hierarchy(machine: Machine) -> str:
    """`v1` or `v2`, where the cpuset controller is; empty where it is in neither. Raises HostError."""
    for line in (machine.text(MOUNTS) or "").splitlines():
        fields, _, kind = line.partition(" - ")
        words = kind.split(" ")
        if words[0] == "cgroup" and "cpuset" in words[-1].split(","):
            return "v1"
        if words[0] == "cgroup2" and _has_cpuset(machine, fields.split(" ")[4]):
            return "v2"
    return ""


def _has_cpuset(machine: Machine, mount: str) -> bool:
    return "cpuset" in (machine.text(f"{mount}/cgroup.controllers") or "").split()


def check_cgroups(machine: Machine) -> Iterator[Diagnosis]:
    """The cpuset controller is there, for the host and for each running guest. Raises HostError."""
    hierarchy = cpuset_hierarchy(machine)
    if not hierarchy:
        yield warning(
            "no cgroup has the cpuset controller: emulator threads are pinned one by one, new ones inherit that",
            "mount cgroups with cpuset: until then `virsh emulatorpin` moves the main thread only",
        )
        return
    yield ok(f"cgroup {hierarchy} with the cpuset controller")
    without = [name for name, status in running(machine) if _is_without_group(machine, status)]
    if without:
        what = f"running without a cpuset cgroup: {_some(without)}"
        yield warning(what, "check cgroup_controllers in qemu.conf and cgroup.subtree_control for cpuset")


def _is_without_group(machine: Machine, status: Status) -> bool:
    try:
        return emulator_group(machine.root, status.pid) is None
    except EmupinError:
        return False  # It has ended meanwhile.


def check_vhost(machine: Machine) -> Iterator[Diagnosis]:
    """vhost workers are where `virsh emulatorpin` reaches them. Raises HostError."""
    if cpuset_hierarchy(machine) == "v2" and (0, 0) < version(machine) < MOVES_VHOST:
        yield warning(
            "before Linux 5.16, vhost workers are in the root cgroup (v2): `virsh emulatorpin` does not move them",
            "nothing to do where the hook runs: it moves them itself; later kernels fix this",
        )
    else:
        yield ok("on this kernel libvirt can move vhost workers itself")


def check_threads(machine: Machine) -> Iterator[Diagnosis]:
    """No running guest has threads that its cgroups do not tell the truth about. Raises HostError."""
    masked, strangers = [], []
    for name, status in running(machine):
        try:
            threads = read_threads(machine.root, status.pid, status)
        except EmupinError:
            continue  # It has ended meanwhile.
        strangers += [name] if any(_is_stranger(thread, status) for thread in threads) else []
        masked += [name] if _has_kept_masks(threads) else []
    if masked:
        since = " (Linux 6.2 and later keep a mask that was set by hand)" if version(machine) >= KEEPS_MASKS else ""
        what = f"emulator threads of one guest on different CPUs{since}: {_some(masked)}"
        yield warning(what, "`emupin status` shows them, `emupin apply` moves them; `virsh emulatorpin` moves one")
    if strangers:
        what = f"threads that are not vCPUs in the cgroup of a vCPU: {_some(strangers)}"
        yield warning(what, "they run on the vCPU's CPU whatever the emulator's pin is: `emupin status` names them")
    if not masked and not strangers:
        yield ok("the threads of running guests are where their cgroups say")


def _is_stranger(thread: Thread, status: Status) -> bool:
    """In a vCPU's cgroup and none of libvirt's vCPUs. KVM's own helper is everywhere since Linux 6.12."""
    vcpus = status.vcpu_tids.values()
    return thread.kind == VCPU and thread.tid not in vcpus and thread.name not in KERNEL_HELPERS


def _has_kept_masks(threads: list[Thread]) -> bool:
    return len({cpuset.format(thread.allowed) for thread in threads if thread.kind == EMULATOR}) > 1


def running(machine: Machine) -> Iterator[tuple[str, Status]]:
    """The guests that run, by name; one whose files are stale or unreadable is left out. Raises HostError."""
    for file in machine.names(LIBVIRT_RUN):
        if file.endswith(".xml"):
            try:
                status = read_status_file(machine.root, file[:-4])
                check_process(machine.root, status.pid, status.domain.uuid or "")
            except EmupinError:
                continue  # It starts or ends just now.
            yield file[:-4], status


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
