"""The line to syslog beside an entry of the audit trail."""

from __future__ import annotations

from emupin.base.text import printable


def log(root: str, message: str, trouble: bool = False) -> None:
    """One line to syslog, facility daemon: a change as notice, trouble as error.

    Nothing where `root` is not this machine: its syslog is not that host's.
    """
    if root:
        return
    import syslog

    syslog.openlog("emupin", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR if trouble else syslog.LOG_NOTICE, printable(message))
