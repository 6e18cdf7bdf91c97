"""The recording process: it outlives the hook, and carries out the orders that hooks leave.

One for the whole host at a time: whatever is ordered while it runs, it takes too, and it lingers for a moment, since
guests rarely start alone. A guest that is busy, for minutes where it comes in by migration, is asked again later and
keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time

from emupin import trouble
from emupin.base import cpuset, files
from emupin.base.errors import BusyError, EmupinError
from emupin.base.frozen import Frozen
from emupin.base.log import log
from emupin.bundle.loader import stamp
from emupin.node import store
from emupin.order import LOCK_AT, ORDERS, Order, command, try_lock
from emupin.recording import record_audited, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINGER_SECONDS = 1.0
"""How long to be there for the next order."""
PAUSE_SECONDS = 0.05
LONGEST_PAUSE = 1.0
"""Between two questions to a guest that is busy; but no less than the first one took, which may be 30 s."""
WAIT_SECONDS = 3600.0
"""How long a guest may be busy before the recording is given up."""

TAKEN = "."
"""Ahead of the name of an order that a recording process has taken, until it is done."""


def main(words: str = "") -> None:
    """The process that `order.leave` starts, with the lock in its hands; or without, for the one order in `words`."""
    root, only = files.root_from_environment(), _parsed(words)
    sys.excepthook = lambda kind, error, trace: trouble.log_traceback(root, kind, error, trace)
    _close_inherited(2 if only else LOCK_AT)
    if only:
        _serve_one(root, only)
        return
    while True:
        serve(root)
        os.close(LOCK_AT)
        # A hook that saw us hold the lock relies on us.
        lock = try_lock(root) if _names(root) else None
        if lock is None:
            return
        if lock != LOCK_AT:
            os.dup2(lock, LOCK_AT)
            os.close(lock)
        os.set_inheritable(LOCK_AT, True)


class _Work(Frozen):
    """An order that was taken."""

    order: Order
    since: float
    """Of the monotonic clock, like `due`."""
    due: float


def serve(root: str) -> None:
    """Carry out what is ordered, until nothing is and nobody has come for a moment."""
    work: dict[str, _Work] = {}
    active = time.monotonic()
    while work or time.monotonic() < active + LINGER_SECONDS:
        if stamp(__file__) != STAMP:  # Upgraded: go on as what is installed now, which finds what was taken.
            os.execv(sys.executable, command())
        now = time.monotonic()
        for order in _take(root, work):
            work[order.uuid] = _Work(order, now, now)
            active = now
        for each in [each for each in work.values() if each.due <= now]:
            pause = _carry_out(root, each)
            if pause is None:
                del work[each.order.uuid]
                _forget(_taken(root, each.order.uuid))
            else:
                work[each.order.uuid] = each.replace(due=time.monotonic() + pause)
        time.sleep(PAUSE_SECONDS if time.monotonic() < active + LINGER_SECONDS else LONGEST_PAUSE)


def _serve_one(root: str, order: Order) -> None:
    """Carry out an order that nobody else knows of."""
    work = _Work(order, time.monotonic(), 0.0)
    while (pause := _carry_out(root, work)) is not None:
        time.sleep(pause)


def _carry_out(root: str, work: _Work) -> float | None:
    """How many seconds later to ask again; None where that is done, or has failed for good and is in the trail."""
    asked = time.monotonic()
    try:
        record_audited(root, work.order, store.find(root).policy)
    except BusyError as error:
        waited = asked - work.since
        if waited < WAIT_SECONDS:
            return max(PAUSE_SECONDS, time.monotonic() - asked, min(waited, LONGEST_PAUSE))
        report(root, work.order, "failed", f"{error} (asked for {WAIT_SECONDS / 60:.0f} minutes)", {})
    except EmupinError:
        pass
    return None


def _take(root: str, work: Mapping[str, object]) -> Iterator[Order]:
    """The new orders, and those not at `work` here that a process had taken before it was killed."""
    names = _names(root)
    for name in names:
        uuid = name.lstrip(TAKEN)
        if name != uuid and (uuid in work or uuid in names):
            continue
        path = _taken(root, uuid)
        os.replace(f"{root}{ORDERS}/{name}", path)
        order = _parsed(os.fsdecode(files.read_bytes(path)), uuid)
        if order is None:
            log(root, f"{path}: is not an order of this version; `emupin apply` records the pin", trouble=True)
            _forget(path)
        else:
            yield order


def _taken(root: str, uuid: str) -> str:
    return f"{root}{ORDERS}/{TAKEN}{uuid}"


def _forget(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # emupin was uninstalled meanwhile.
        os.unlink(path)


def _names(root: str) -> list[str]:
    """Files in the folder of orders, but for those still being written. The new ones first: whatever ended the process
    that had taken the others may end this one.
    """
    try:
        with os.scandir(root + ORDERS) as entries:
            names = [entry.name for entry in entries if is_order(entry.name) and entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:  # Nobody has ordered, or emupin was uninstalled meanwhile.
        return []
    return sorted(names, key=lambda name: (name.startswith(TAKEN), name))


def is_order(name: str) -> bool:
    """Whether a file in the folder of orders is one, and not still being written, or left so."""
    return "." not in name.lstrip(TAKEN)


def _parsed(words: str, uuid: str = "") -> Order | None:
    """None where that is not an order as this version of emupin writes it, or is for another guest than `uuid`."""
    try:
        fields = json.loads(words)
        order = Order(**{**fields, "cpus": cpuset.parse(str(fields["cpus"])) if fields["cpus"] else None})
    except (ValueError, TypeError, KeyError, RecursionError, EmupinError):
        return None
    return order if isinstance(order.uuid, str) and order.uuid == (uuid or order.uuid) else None


STAMP = stamp(__file__)


def _close_inherited(last: int) -> None:
    """Close what is open above the `last` of ours: whoever calls the hook may have left a copy of its output there."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if int(descriptor) > last:
                os.close(int(descriptor))
        except OSError as error:
            if error.errno != errno.EBADF:  # The listing's own.
                raise
