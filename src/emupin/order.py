"""What is to be recorded in libvirt's own definitions, left to a process of its own.

While a hook runs, libvirt holds the guest's job: a call on that guest from inside would wait for ever. So the hook
leaves an order in `/run/emupin/orders`, a file for each guest, and its last act is to see to it that somebody carries
it out: one recording process for the whole host, detached and on /dev/null, since libvirt waits for whoever holds the
hook's output. It holds a lock for as long as it lives. A file outlives a hook or a process that is killed: the next
recording process takes it.
"""

from __future__ import annotations

import sys
import time

from emupin.base import cpuset
from emupin.base.errors import DomainError
from emupin.base.files import DEFINITIONS, RUN, make_private_folder, read_bytes, replace_file
from emupin.base.frozen import Frozen
from emupin.base.jsonline import encode
from emupin.base.log import log
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain, Status
    from emupin.node.decision import Decision
    from emupin.policy.values import Policy

ORDERS, LOCK = f"{RUN}/orders", f"{RUN}/recorder"
LOCK_AT = 3
"""The descriptor under which a recording process finds its lock, which the hook took for it: of two hooks that look at
the same moment one starts a process, long before that process could take a lock of its own.
"""

DELAY_SECONDS = 0.1
"""Until a recording process begins: where CPUs are scarce, libvirt would wait for the start of a second Python."""

SHUT_OFF = "-1"
"""libvirt's number of a guest that does not run."""


class Order(Frozen):
    """What to record, for which run of which guest."""

    uuid: str
    domain_id: str
    """libvirt's number of the running guest, or SHUT_OFF: a guest that was started anew meanwhile has another one."""
    cpus: frozenset[int] | None
    """For the live definition; None leaves that alone."""
    persist: bool
    """See to the persistent definition too, by a plan of its own."""
    follow_iothreads: bool
    """The iothreads are pinned like the emulator threads."""
    rule: str
    placement: str
    policy: str
    """The policy's digest."""
    vhost: str = ""
    """The CPU list of vhost workers that are apart: libvirt's call moves them to the others, and they must go back."""


def order_for(plan: Plan, status: Status, policy: str) -> Order:
    """What to record once `plan` was enforced on the guest that `status` describes."""
    guest = status.domain
    origin = plan.rule or "", plan.placement or "", policy, cpuset.format(plan.vhost or ())
    return Order(guest.uuid or "", guest.id or "", plan.pin, plan.persist, plan.follow_iothreads, *origin)


def correction(uuid: str, policy: str) -> Order:
    """To see to the persistent definition alone."""
    return Order(uuid, SHUT_OFF, None, True, False, "", "", policy)


def is_recorded(root: str, plan: Plan, guest: Domain, status: Status, policy: Policy) -> bool:
    """Whether libvirt's definitions say already what an order would have them say: `guest` is the running one.

    The persistent definition gets a plan of its own. That is the guest's where both say the same.
    """
    if not status.has_come or not plan.is_in(status.domain):
        return False
    if not plan.persist:
        return True
    from emupin.engine.confinement import DEFAULT  # libvirt adds it when the guest starts.
    from emupin.guest.domainxml import read

    path = f"{root}{DEFINITIONS}/{guest.name}.xml"
    try:
        stored = read(read_bytes(path), path, policy.sections())
    except FileNotFoundError:  # A transient guest.
        return True
    except (OSError, DomainError):
        return False
    same = {"id": guest.id, "layout": guest.layout, "numad": guest.numad, "partition": stored.partition or DEFAULT}
    return stored.replace(**same) == guest.replace(partition=guest.partition or DEFAULT) and plan.is_in(stored)


def give_back(root: str, decision: Decision) -> tuple[Decision, Callable[[], None] | None]:
    """Move a guest that is left as it is off CPUs that another has alone, where its pin is emupin's own of before.

    The decision that says so, and the last act of the process, as `leave` has it: the definition gets what stood there
    before. No act where the pin is somebody's. Raises HostError.
    """
    from emupin.guest.domain import EMULATOR
    from emupin.node import former
    from emupin.node.refuge import move_away

    guest = decision.guest
    if EMULATOR not in former.stood(root, guest):
        return decision, None
    done = move_away(root, decision)
    log(root, f"{guest.name}: {done}", trouble=True)
    act = leave(root, guest.name, correction(guest.uuid or "", decision.policy.digest))
    return decision.replace(problems=(*decision.problems, done)), act


def leave(root: str, name: str, order: Order) -> Callable[[], None]:
    """Leave `order` in its file, in place of an earlier one for the guest `name`, if /run is not full.

    Whoever leaves it calls what this returns as the last act of its process: that starts a recording process where none
    runs, and hands it an order that is in no file. The new one begins as a copy of the one that ends then: to copy the
    few pages that are still written to costs libvirt less time than the start of another program. What is wrong is
    said: a guest is stopped for no record.
    """
    # The guest's name stays out of it: it is the tenant's.
    words = encode({**order.__dict__, "cpus": cpuset.format(order.cpus) if order.cpus else None})
    try:
        make_private_folder(root + RUN)
        make_private_folder(root + ORDERS)
        replace_file(f"{root}{ORDERS}/{order.uuid}", words.encode(), durable=False)
    except OSError:
        return lambda: _start(root, name, words)
    return lambda: _start_where_none_runs(root, name, words)


def _start_where_none_runs(root: str, name: str, words: str) -> None:
    """Start a recording process, unless one is at work: that finds the order in its file."""
    try:
        lock = try_lock(root)
    except OSError:
        _start(root, name, words)
    else:
        if lock is not None:
            _start(root, name, "", lock)


def _start(root: str, name: str, words: str, lock: int | None = None) -> None:
    """Start a recording process with the `lock`, or one for the order in `words` alone."""
    try:
        _let_go(lock)
        if os.fork() == 0:
            _become_recorder(root, name, words)
        if lock is not None:
            os.close(LOCK_AT)  # Else whoever comes once the recorder has ended takes this process for one.
    except OSError as error:
        _complain(root, name, error)


def _become_recorder(root: str, name: str, words: str) -> NoReturn:
    try:
        os.setsid()
        time.sleep(DELAY_SECONDS)
        os.execv(sys.executable, [*command(), words])
    except OSError as error:
        _complain(root, name, error)
    finally:
        os._exit(1)


def _complain(root: str, name: str, error: OSError) -> None:
    what = f"the recording process cannot be started: {error.strerror}"
    log(root, f"{name}: {what}; the pin was not recorded: `emupin apply`", trouble=True)


def _let_go(lock: int | None) -> None:
    """Leave nothing open but /dev/null and the `lock`: libvirt waits for whoever holds its pipes. Raises OSError."""
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    last = 2
    if lock is not None:
        last = os.dup2(lock, LOCK_AT)
        os.set_inheritable(LOCK_AT, True)
    os.closerange(last + 1, 256)


def try_lock(root: str) -> int | None:
    """The descriptor of the recording process's lock; None where one is at work. Raises OSError."""
    import fcntl

    lock = os.open(root + LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def command() -> list[str]:
    """The recording process's; an order for it alone may follow."""
    library = os.path.dirname(os.path.dirname(__file__))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from emupin.recorder import main; main(*sys.argv[2:])"
    return [sys.executable, "-I", "-c", code, library]
