"""The line to syslog beside an entry of the audit trail: sent without waiting, or not at all.

The C library's `syslog` waits for whoever reads `/dev/log`. A stopped journald, or one that is stuck on its disk, would
hold up the hook, and with it every guest of the host.
"""

from __future__ import annotations

import time

from emupin.base.system import os
from emupin.base.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SOCKET: Final = "/dev/log"
DAEMON: Final = 3 << 3
ERROR, NOTICE = 3, 5

LONGEST: Final = 8192
"""Characters of a message; rsyslog cuts there too."""


def log(root: str, message: str, trouble: bool = False) -> None:
    """One line to syslog, facility daemon: a change as notice, trouble as error; dropped where nobody takes it at once.

    Nothing where `root` is not this machine: its syslog is not that host's.
    """
    if root:
        return
    # `socket` brings `enum` and `selectors` with it, a third of the hook's start-up time.
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket

    priority = DAEMON | (ERROR if trouble else NOTICE)
    line = f"<{priority}>{time.strftime('%b %e %T')} emupin[{os.getpid()}]: {printable(message)[:LONGEST]}"
    try:
        sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        sender.connect(SOCKET)
        sender.send(os.fsencode(line))
    except OSError:
        return  # Nobody is there, or has room: the audit trail says the same.
