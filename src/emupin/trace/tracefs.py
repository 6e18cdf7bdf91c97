"""The kernel's tracefs: where it is, and why it cannot be used where it cannot."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from emupin.base.errors import TraceError
from emupin.base.files import read_bytes, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
"""The second mounts itself when it is entered (debugfs, and kernels before 4.1)."""
MOUNT = "mount -t tracefs nodev /sys/kernel/tracing"
LOCKDOWN = "/sys/kernel/security/lockdown"
NAMESPACE = "/proc/self/ns/pid"
FIRST_NAMESPACE = "pid:[4026531836]"
"""The machine's own process ids (PROC_PID_INIT_INO): those that the kernel's events have."""
REFUSED = (errno.EPERM, errno.EACCES, errno.EROFS)


def find(root: str) -> str:
    """The folder of tracefs. Raises TraceError, which says what is missing and what to do."""
    _check_namespace(root)
    for place in (*_mounted(root), *PLACES):
        folder = root + place
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise trouble(root, folder, error) from None
        if "events" in names or "tracing_on" in names:
            _check(folder)
            return folder
    if "tracefs" not in read_text(root, "/proc/filesystems").split():
        hint = "it needs CONFIG_EVENT_TRACING; `emupin advise` works without"
        raise TraceError(root + PLACES[0], "this kernel was built without event tracing", hint)
    raise TraceError(root + PLACES[0], "tracefs is not mounted", f"mount it: `{MOUNT}`")


def _check(folder: str) -> None:
    if not os.path.isdir(f"{folder}/events/sched/sched_switch"):
        what = "this kernel has no scheduling events (sched_switch)"
        raise TraceError(folder, what, "it needs CONFIG_EVENT_TRACING; `emupin advise` works without")
    if not os.path.isdir(f"{folder}/instances"):
        what = "this kernel cannot trace in an instance of its own"
        raise TraceError(folder, what, "emupin does not disturb the only one; Linux 3.10 and later have them")


def _mounted(root: str) -> Iterator[str]:
    """Where this process finds tracefs (proc(5), mountinfo)."""
    for line in read_text(root, "/proc/self/mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split(" ")[0] == "tracefs":
            yield fields.split(" ")[4].encode().decode("unicode_escape")


def _check_namespace(root: str) -> None:
    """In a container with process ids of its own the kernel's events name threads by numbers that mean nothing."""
    try:
        namespace = os.readlink(root + NAMESPACE)
    except OSError as error:
        raise trouble(root, root + NAMESPACE, error) from None
    if namespace != FIRST_NAMESPACE:
        what = "this container has process ids of its own, and the kernel's events have the host's"
        raise TraceError("emupin trace", what, "run it on the host, or in a container with the host's ids (--pid=host)")


def trouble(root: str, path: str, error: OSError) -> TraceError:
    """The error for a file of tracefs, with the likely cause."""
    what = f"cannot be used: {error.strerror}"
    if error.errno == errno.ENOMEM:
        return TraceError(path, what, "the kernel has no memory for the buffers: free some, or trace fewer CPUs")
    if error.errno not in REFUSED:
        return TraceError(path, what, "does this kernel have sched_switch events?")
    if os.geteuid():
        return TraceError(path, what, "only root may trace")
    if _locked_down(root):
        return TraceError(path, "the kernel is locked down (confidentiality)", "it lets nobody trace; see lockdown(7)")
    hint = "a container needs CAP_SYS_ADMIN and a writable /sys/kernel/tracing: run it on the host"
    return TraceError(path, what, hint)


def _locked_down(root: str) -> bool:
    try:
        return b"[confidentiality]" in read_bytes(root + LOCKDOWN)
    except OSError:  # No lockdown in this kernel, or securityfs is not mounted: then it cannot be told.
        return False
