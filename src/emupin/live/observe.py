"""A running guest as it is: its status file, every thread with its counters, its cpuset cgroups, its definition.

All of it comes from `/run/libvirt/qemu`, `/proc`, the cgroups and `/etc/libvirt/qemu`; libvirt is not asked.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.errors import DomainError, HostError, hint
from emupin.base.files import DEFINITIONS, LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.engine.plan import Plan, plan
from emupin.engine.situation import cpus_that_matter
from emupin.guest import domainxml
from emupin.guest.cgroups import emulator_group, iothread_groups
from emupin.guest.threads import (
    EMULATOR,
    FLAGS,
    HELPER,
    IOTHREAD,
    PF_NO_SETAFFINITY,
    UNTOLD,
    VCPU,
    VHOST,
    check_process,
    read_status_file,
    read_threads,
)
from emupin.live.drift import DEFINED, TRANSIENT, UNKNOWN, Assessment, Group, Live, assess
from emupin.live.helpers import read_helpers
from emupin.node.claims import from_mask
from emupin.node.definition import settle_as

if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.guest.threads import Thread
    from emupin.live.facts import Facts
    from emupin.policy.values import Policy


KINDS = (EMULATOR, VHOST, UNTOLD, IOTHREAD, VCPU, HELPER)
"""In the order in which they are shown."""

LAST_CPU = 36
"""Of the fields of `stat` behind the last `)`: the 39th of them all."""


class Counters(Frozen):
    """What the kernel counts for a thread since it was born; None where it does not say."""

    cpu: int | None
    """Where it runs, or ran last."""
    voluntary: int | None
    involuntary: int | None
    migrations: int | None
    run: int | None
    """Nanoseconds on a CPU."""
    wait: int | None
    """Nanoseconds ready to run, and not running."""
    flags: int = 0
    """The kernel's for the thread: `PF_*`."""


class Observed(Frozen):
    """One guest at one moment."""

    assessment: Assessment
    counters: dict[int, Counters]
    """By thread id."""
    at: float
    """Seconds on the monotonic clock."""


def running(root: str) -> list[str]:
    """The names of the running guests. Raises HostError."""
    try:
        names = os.listdir(root + LIBVIRT_RUN)
    except FileNotFoundError:
        return []  # libvirt has not run yet.
    except OSError as error:
        raise HostError(root + LIBVIRT_RUN, f"cannot be listed: {error.strerror}", "run it as root") from None
    return sorted(name[:-4] for name in names if name.endswith(".xml"))


def observe(root: str, name: str, policy: Policy | None, facts: Facts | None) -> Observed:
    """The running guest `name` against its plan, the same plan that the hook makes. Raises HostError, DomainError."""
    status = read_status_file(root, name, policy.sections() if policy else frozenset())
    guest = status.domain
    check_process(root, status.pid, guest.uuid or "")
    at = time.monotonic()
    texts: dict[int, tuple[str, str]] = {}
    folder = emulator_group(root, status.pid, status.vcpu_tids.values())
    threads = read_threads(root, status.pid, status, texts)
    threads += read_helpers(root, status, folder, texts)
    counters = {thread.tid: found for thread in threads if (found := _counters(root, *texts[thread.tid])) is not None}
    alive = tuple(_with_flags(thread, counters[thread.tid]) for thread in threads if thread.tid in counters)
    persistence, persistent = read_definition(root, name, policy)
    planned = _plan(guest, policy, facts)
    settled = None
    if persistent:  # A guest of its own, with a plan of its own.
        try:
            settled = settle_as(root, persistent, _plan(persistent, policy, facts), facts.host if facts else None)
        except HostError:  # What stood there before is not known: neither is what is to come there.
            persistence, persistent = UNKNOWN, None
    live = Live(
        status,
        _ordered(alive, status.pid),
        _group(folder) if folder else None,
        {_trailing_number(each): _group(each) for each in iothread_groups(folder)} if planned.follow_iothreads else {},
        persistence,
        persistent,
        _claimed(guest, facts),
        settled,
    )
    return Observed(assess(live, planned), counters, at)


def _with_flags(thread: Thread, counters: Counters) -> Thread:
    return thread.replace(fixed=True) if counters.flags & PF_NO_SETAFFINITY else thread


def _ordered(threads: tuple[Thread, ...], pid: int) -> tuple[Thread, ...]:
    """The main thread, its fellows, then vhost, iothreads and vCPUs by their numbers, and helpers."""

    def rank(thread: Thread) -> tuple[int, int, bool, int]:
        number = -1 if thread.number is None else thread.number
        return KINDS.index(thread.kind), number, thread.tid != pid, thread.tid

    return tuple(sorted(threads, key=rank))


def _plan(guest: Domain, policy: Policy | None, facts: Facts | None) -> Plan:
    if policy is None or facts is None:
        return Plan(None, "no policy is in force")
    wanted = cpus_that_matter(guest, policy, facts.host)
    others = facts.ledger.others(guest.uuid, wanted) if facts.ledger else facts.held
    return plan(guest, policy, facts.host, others)


def _claimed(guest: Domain, facts: Facts | None) -> frozenset[int] | None:
    claim = facts.ledger.claims.get(guest.uuid or "") if facts and facts.ledger else None
    return from_mask(claim.cpus) if claim and claim.cpus else None


def read_definition(root: str, name: str, policy: Policy | None) -> tuple[str, Domain | None]:
    """What is known of the persistent definition of `name`, and the definition where it can be read."""
    folder = root + DEFINITIONS
    path = f"{folder}/{name}.xml"
    try:
        return DEFINED, domainxml.read(read_bytes(path), path, policy.sections() if policy else frozenset())
    except FileNotFoundError:
        return (TRANSIENT if os.path.isdir(folder) else UNKNOWN), None
    except (OSError, DomainError):  # Not ours to judge: libvirt holds its definitions in memory.
        return UNKNOWN, None


# -- threads ----------------------------------------------------------------------------------------------------------


def _counters(root: str, path: str, status: str) -> Counters | None:
    """The counters of the thread at `path`, whose `status` file was read already; None where it has ended."""
    folder = root + path
    try:
        last = _read(f"{folder}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    run, wait = _times(folder)
    voluntary, involuntary = _switches(status)
    return Counters(
        int(last[LAST_CPU]) if len(last) > LAST_CPU else None,
        voluntary,
        involuntary,
        _migrations(folder),
        run,
        wait,
        int(last[FLAGS]) if len(last) > FLAGS else 0,
    )


def _read(path: str) -> bytes:
    """A small file of the kernel's. With three of them for each thread, what `open` does besides is worth saving."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while piece := os.read(descriptor, 16384):
            data += piece
        return data
    finally:
        os.close(descriptor)


def _switches(status: str) -> tuple[int | None, int | None]:
    """Voluntary and involuntary context switches, from the last two lines."""
    _, found, rest = status.partition("\nvoluntary_ctxt_switches:")
    voluntary, _, involuntary = rest.partition("\nnonvoluntary_ctxt_switches:")
    return (int(voluntary), int(involuntary.partition("\n")[0])) if found else (None, None)


def _times(folder: str) -> tuple[int | None, int | None]:
    """Run and wait time from `schedstat`, which a kernel may be built without."""
    try:
        run, wait, _ = _read(f"{folder}/schedstat").split()
    except (OSError, ValueError):
        return None, None
    return int(run), int(wait)


def _migrations(folder: str) -> int | None:
    """From `sched`, which a kernel may be built without."""
    try:
        _, found, rest = _read(f"{folder}/sched").partition(b"se.nr_migrations")
    except OSError:
        return None
    return int(rest[: rest.index(b"\n")].strip(b" :")) if found else None


# -- cgroups ----------------------------------------------------------------------------------------------------------


def _group(folder: str) -> Group:
    """Raises HostError."""
    path = f"{folder}/cpuset.cpus"
    try:
        cpus = cpuset.parse_kernel(os.fsdecode(read_bytes(path)))
        try:
            effective = cpuset.parse_kernel(os.fsdecode(read_bytes(f"{path}.effective")))
        except FileNotFoundError:  # cgroup v1
            effective = cpus
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", hint(error, "the guest may have ended")) from None
    return Group(folder, cpus or effective, effective)


def _trailing_number(folder: str) -> int:
    return int(folder.rpartition("iothread")[2])
