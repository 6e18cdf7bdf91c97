"""What is to be recorded in libvirt's own definitions, and the start of the process that does it.

While a hook runs, libvirt holds the guest's job: a call on that guest from inside would wait for ever. So the hook
leaves it to a process of its own, detached and on /dev/null: libvirt waits for whoever holds the hook's output.
"""

from __future__ import annotations

import sys

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.frozen import Frozen
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Status

DELAYED = ("/bin/sh", "-c", 'sleep 0.1; exec "$@"', "emupin")
"""Ahead of a command that is to begin when the hook has ended: libvirt waits for the hook, and on a busy CPU the hook
would wait for the start of a second Python, 3 ms of 17. A `sleep` that knows no fractions fails, and delays nothing.
"""

NO_PIN = "none"
"""Stands for None on the command line."""

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
    follow: bool
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
    return Order(guest.uuid or "", guest.id or "", plan.pin, plan.persist, plan.iothreads, *origin)


def correction(uuid: str, policy: str) -> Order:
    """To see to the persistent definition alone."""
    return Order(uuid, SHUT_OFF, None, True, False, "", "", policy)


def start(order: Order) -> None:
    """Start the recording process and leave it: a session of its own, nothing of ours open in it.

    The guest's name stays off the command line: it is the tenant's. Raises HostError.
    """
    library = os.path.dirname(os.path.dirname(__file__))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from emupin.recorder import main; main(*sys.argv[2:])"
    choices = ["yes" if chosen else "no" for chosen in (order.persist, order.follow)]
    words = [order.uuid, order.domain_id, cpuset.format(order.cpus) if order.cpus else NO_PIN, *choices]
    origin = order.rule, order.placement, order.policy, order.vhost
    command = [*DELAYED, sys.executable, "-I", "-c", code, library, *words, *origin]
    null = [(os.POSIX_SPAWN_OPEN, stream, "/dev/null", os.O_RDWR, 0) for stream in (0, 1, 2)]
    try:
        os.posix_spawn(command[0], command, os.environ, file_actions=null, setsid=True)
    except OSError as error:
        raise HostError(command[0], f"cannot be started: {error.strerror}", "recording needs it") from None
