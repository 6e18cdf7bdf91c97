"""The hook's own limit: after so many seconds its work is broken off, with a little time left to report that."""

from __future__ import annotations

import time

from emupin.base.errors import TimedOutError
from emupin.base.files import LOCK_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType
else:
    import _signal  # `signal` brings `enum` with it, a third of the hook's start-up time.

REPORT_SECONDS = 0.5
"""How long to wait for other writers of the audit trail with a report, whatever it is that took the time."""

_deadline = float("inf")
_holds = False


def begin(seconds: float) -> None:
    """Raise TimedOutError after `seconds`; in a system call that does not end, Python cannot: the shell ends it."""
    global _deadline, _holds

    def expire(_number: int, _frame: FrameType | None) -> None:
        if _holds:
            raise TimedOutError("the hook", f"took more than {seconds:g} seconds", "a disk or a lock may be stuck")

    _deadline, _holds = time.monotonic() + seconds, True
    _signal.signal(_signal.SIGALRM, expire)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    _signal.setitimer(_signal.ITIMER_REAL, seconds)


def end() -> float:
    """Let what follows, a report, not be broken off; how long it may wait for others, in seconds."""
    global _holds
    _holds = False  # Python may come to a signal later than the kernel.
    _signal.setitimer(_signal.ITIMER_REAL, 0)
    return min(max(left(), REPORT_SECONDS), LOCK_SECONDS)


def left() -> float:
    """Seconds until the limit."""
    return _deadline - time.monotonic()
