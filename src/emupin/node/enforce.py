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
from emupin.guest.cgroups import emulator_group, iothread_groups
from emupin.guest.threads import EMULATOR, IOTHREAD, PF_NO_SETAFFINITY, UNTOLD, VHOST, flags, read_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from emupin.guest.domain import Status
    from emupin.guest.threads import Thread

    Cpus = frozenset[int]
    SetAffinity = Callable[[int, Cpus], None]

ROUNDS = 8
"""A thread may be born from one that was not moved yet: how often to look again before calling it an error."""

UNMOVABLE = "the kernel lets nobody set the CPUs of this worker of its own (io_uring, Linux 5.12 to 6.2)"
MAYBE_IOTHREAD = "it may be an iothread: QEMU names no threads (debug-threads=off), and libvirt has no cpuset cgroup"
SET_HINT = "the CPUs must be online and inside the thread's cpuset cgroup"


class Left(Frozen):
    """A thread that stayed where it was."""

    thread: Thread
    why: str
    excused: bool
    """Nobody could have moved it, or nothing tells that it is ours: no reason to stop a guest."""

    def __str__(self) -> str:
        return f"{self.thread.name} ({self.thread.tid}) stays on {cpuset.format(self.thread.allowed)}: {self.why}"


class Enforced(Frozen):
    """What was changed; nothing of it: everything was in line already."""

    groups: int
    """How many cpuset cgroups were written."""
    moved: tuple[int, ...]
    """Thread ids whose affinity was set."""
    left: tuple[Left, ...] = ()
    """Threads that are elsewhere at the end."""

    @property
    def failed(self) -> tuple[Left, ...]:
        """The threads that should have gone."""
        return tuple(each for each in self.left if not each.excused)

    def check(self, name: str, cpus: Cpus) -> None:
        """Raise EnforceError where a thread of the guest `name` is elsewhere that should have been put on `cpus`."""
        if self.failed:
            what = f"not all emulator threads are on {cpuset.format(cpus)}: {', '.join(map(str, self.failed))}"
            raise EnforceError(f"guest {name}", what, "all others are; `emupin status` shows them")


def enforce(
    root: str,
    status: Status,
    cpus: Cpus,
    set_affinity: SetAffinity,
    follow: bool = False,
    vhost: Cpus | None = None,
) -> Enforced:
    """Allow every emulator thread of the guest exactly `cpus`, its vhost workers `vhost` or else the same.

    If the iothreads `follow`, they and their block workers have `cpus` too. Workers that are apart are in the same
    cpuset cgroup, so that covers both, and each thread is set by itself. `set_affinity` is `os.sched_setaffinity`. A
    thread that does not go there stops no other. Raises EnforceError where a cgroup does not take the CPUs, HostError
    where the host's files do not say where the threads are.
    """
    group, wanted = emulator_group(root, status.pid, status.vcpu_tids.values()), {EMULATOR: cpus, VHOST: vhost or cpus}
    written = group is not None and _write_group(group, cpus | (vhost or cpus))
    errors: dict[int, OSError] = {}
    moved = [status.pid] if written and _set(status.pid, cpus, set_affinity, errors) else []
    groups = int(written)
    if follow:
        wanted.update({IOTHREAD: cpus, UNTOLD: cpus})
        groups += sum(_write_group(each, cpus) for each in iothread_groups(group))
    for _ in range(ROUNDS):
        threads = read_threads(root, status.pid, status)
        strays = [thread for thread in threads if thread.allowed != wanted.get(thread.kind, thread.allowed)]
        movable = [stray for stray in strays if stray.tid not in errors]
        if not movable:
            break
        moved += [stray.tid for stray in movable if _set(stray.tid, wanted[stray.kind], set_affinity, errors)]
    unknown = [thread for thread in threads if thread.kind == UNTOLD and thread.allowed != cpus and not follow]
    left = [_left(root, status.pid, stray, errors.get(stray.tid)) for stray in strays]
    return Enforced(groups, tuple(moved), (*left, *(Left(thread, MAYBE_IOTHREAD, True) for thread in unknown)))


def _left(root: str, pid: int, stray: Thread, error: OSError | None) -> Left:
    """Why `stray` is where it is; `error` is what setting its affinity ended in."""
    folder = f"{root}/proc/{pid}/task/{stray.tid}"
    if flags(folder if os.path.exists(folder) else f"{root}/proc/{stray.tid}") & PF_NO_SETAFFINITY:
        return Left(stray, UNMOVABLE, True)
    if stray.outside:
        return Left(stray, f"somebody moved it to the cgroup {stray.group}, outside the guest's", False)
    return Left(stray, f"{error.strerror} ({SET_HINT})" if error else "somebody else sets its affinity", False)


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


def _set(tid: int, cpus: Cpus, set_affinity: SetAffinity, errors: dict[int, OSError]) -> bool:
    """Whether the thread was set; one that has ended meanwhile was not. `errors` takes what the kernel says, by tid."""
    try:
        set_affinity(tid, cpus)
    except ProcessLookupError:
        return False
    except OSError as error:
        errors[tid] = error
        return False
    return True
