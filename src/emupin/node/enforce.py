"""Put the live emulator threads of a guest on the planned CPUs, and prove it by reading every one of them back.

The order is libvirt's own (qemuDomainPinEmulatorLive): the cpuset cgroup, then the main thread; then only what still
differs. Linux 6.2 and later keeps the mask that a thread once asked for and intersects it with the cpuset, so the
cgroup alone is not enough; and a mask set by hand sticks, so no thread is set that is right already.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import EnforceError
from emupin.base.files import read_bytes, read_text, write_all
from emupin.base.frozen import Frozen
from emupin.base.system import os
from emupin.guest.threads import EMULATOR, IOTHREAD, VHOST, emulator_group, iothread_groups, read_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from emupin.guest.domain import Status

    Cpus = frozenset[int]
    SetAffinity = Callable[[int, Cpus], None]

ROUNDS = 8
"""A thread may be born from one that was not moved yet: how often to look again before calling it an error."""


class Enforced(Frozen):
    """What was changed; nothing of it: everything was in line already."""

    groups: int
    """How many cpuset cgroups were written."""
    moved: tuple[int, ...]
    """Thread ids whose affinity was set."""


def enforce(root: str, status: Status, cpus: Cpus, set_affinity: SetAffinity, follow: bool = False) -> Enforced:
    """Allow every emulator thread of the guest, its vhost workers included, exactly `cpus`; touch no other thread.

    If the iothreads `follow`, they and their block workers too. `set_affinity` is `os.sched_setaffinity`. Raises
    EnforceError where a thread is elsewhere at the end, HostError where the host's files do not say where it is.
    """
    group, kinds = emulator_group(root, status.pid), {EMULATOR, VHOST}
    written = group is not None and _write_group(group, cpus)
    moved = [status.pid] if written and _set(status.pid, cpus, set_affinity) else []
    groups = int(written)
    if follow:
        kinds.add(IOTHREAD)
        groups += sum(_write_group(each, cpus) for each in iothread_groups(group))
    for _ in range(ROUNDS):
        threads = read_threads(root, status.pid, status)
        strays = [thread for thread in threads if thread.kind in kinds and thread.allowed != cpus]
        if not strays:
            return Enforced(groups, tuple(moved))
        moved += [stray.tid for stray in strays if _set(stray.tid, cpus, set_affinity)]
    where = ", ".join(f"{stray.name} ({stray.tid}) on {cpuset.format(stray.allowed)}" for stray in strays)
    raise EnforceError(
        f"process {status.pid}",
        f"emulator threads are not on {cpuset.format(cpus)} but: {where}",
        "who else sets their affinity?",
    )


def _write_group(group: str, cpus: Cpus) -> bool:
    """Give the cpuset cgroup `cpus`; whether it had others. Raises EnforceError where that does not take effect.

    cgroup v1 refuses CPUs that the parent lacks; v2 takes them, and what holds is in `cpuset.cpus.effective`.
    """
    path = f"{group}/cpuset.cpus"
    hint = "a cgroup above the guest's has fewer CPUs: compare their cpuset.cpus"
    changes = cpuset.parse_kernel(read_text("", path)) != cpus
    if changes:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                write_all(descriptor, cpuset.format(cpus).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise EnforceError(path, f"does not take {cpuset.format(cpus)}: {error.strerror}", hint) from None
    try:
        effective = cpuset.parse_kernel(os.fsdecode(read_bytes(f"{path}.effective")))
    except FileNotFoundError:
        return changes  # cgroup v1
    if effective != cpus:
        raise EnforceError(path, f"holds {cpuset.format(cpus)}, effective are {cpuset.format(effective)}", hint)
    return changes


def _set(tid: int, cpus: Cpus, set_affinity: SetAffinity) -> bool:
    """Whether the thread was set; one that has ended meanwhile was not. Raises EnforceError."""
    try:
        set_affinity(tid, cpus)
    except ProcessLookupError:
        return False
    except OSError as error:
        hint = "the CPUs must be online and inside the thread's cpuset cgroup"
        raise EnforceError(f"thread {tid}", f"cannot be put on {cpuset.format(cpus)}: {error.strerror}", hint) from None
    return True
