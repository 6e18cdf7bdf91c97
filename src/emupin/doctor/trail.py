"""The audit trail, its folders and the clock that dates it: writable, whole, up to date."""

from __future__ import annotations

import json
import os
import stat
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from emupin.base.files import AUDIT, POLICIES, RUN, STATE
from emupin.base.kept import POLICIES_KEPT, TOPOLOGIES_KEPT, place
from emupin.doctor.diagnosis import Diagnosis, ok, problem, unknown, warning
from emupin.doctor.machine import unreadable
from emupin.node.claims import Ledger
from emupin.trail import chain, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine

TAIL = 1 << 18
"""How much of the trail's end is looked at, in bytes."""
LEAST_FREE = 16 << 20
"""Bytes of free space from which on a disk is nearly full."""
LEAST_INODES = 100
SLACK = 60.0
"""Seconds by which a clock may be off, or an entry late."""

FOREIGN = (".zst", ".lz4", ".lzo", ".Z", ".lzma", ".lz", ".br")
"""Ends of files that programs make which nothing here reads, though logrotate may be told to use them."""

KEPT = {"policy": POLICIES_KEPT, "topology": TOPOLOGIES_KEPT}
"""Where what an entry names is kept, by the key that has its digest."""

FOLDERS = {
    os.path.dirname(AUDIT): "nothing is audited",
    RUN: "CPUs cannot be claimed",
    STATE: "the last good policy cannot be kept",
}
"""What the hook writes to, and what is lost where it cannot."""


def check_folders(machine: Machine) -> Iterator[Diagnosis]:
    """The hook can write, and there is room. Raises HostError."""
    for folder, loss in FOLDERS.items():
        yield _folder(machine, folder, loss)


def _folder(machine: Machine, folder: str, loss: str) -> Diagnosis:
    place = folder
    while (status := machine.status(place)) is None and place != "/":
        place = os.path.dirname(place)  # The hook makes what is missing.
    path = machine.path(place)
    if status is None:
        return problem(f"{path} does not exist: {loss}", "set EMUPIN_ROOT to an existing folder, or unset it")
    if not stat.S_ISDIR(status.st_mode):
        return problem(f"{path} is not a folder: {loss}", "move it away; the hook creates the folder")
    if os.geteuid() and not os.access(path, os.W_OK):
        return unknown(f"whether root can write to {path}", "run it as root")
    if not os.access(path, os.W_OK):
        return problem(f"{path} cannot be written to: {loss}", "is the file system read-only, or the folder immutable?")
    if place == folder and status.st_mode & 0o022:
        return problem(f"{path} is writable by others", f"`chmod 0700 {path}`")
    if place == folder and status.st_uid not in (0, os.geteuid()):
        return problem(f"{path} belongs to user {status.st_uid}, who can change what is in it", f"`chown root: {path}`")
    return _room(machine, path, loss)


def _room(machine: Machine, path: str, loss: str) -> Diagnosis:
    try:
        disk = machine.disk(path)
    except OSError as error:
        raise unreadable(path, error) from None
    free = disk.f_bavail * disk.f_frsize
    if free == 0 or (disk.f_files and disk.f_favail == 0):
        return problem(f"the file system of {path} is full: {loss}", "free some space")
    if free < min(LEAST_FREE, disk.f_blocks * disk.f_frsize // 10) or (disk.f_files and disk.f_favail < LEAST_INODES):
        return warning(f"the file system of {path} is almost full ({free >> 20} MiB)", f"free some space, or {loss}")
    return ok(f"{path} is writable and has room")


# -- the trail ---------------------------------------------------------------------------------------------------------


def check_trail(machine: Machine) -> Iterator[Diagnosis]:
    """The trail is a private file of whole entries. Raises HostError."""
    status, path = machine.status(AUDIT, follow=False), machine.path(AUDIT)
    if status is None:
        why = "since it was rotated" if _last(machine) else "yet: no decision was needed"
        yield ok(f"there is no audit trail {why}")
        return
    if not stat.S_ISREG(status.st_mode):
        yield problem(f"{path} is not a regular file, so nothing can be written to it", "replace it by one")
        return
    yield from _secrecy(path, status)
    if os.access(path, os.W_OK):
        yield from _content(path, last_lines(machine))
    elif os.geteuid():
        yield unknown(f"whether {path} is whole", "run it as root")
    else:
        yield problem(f"{path} cannot be written to: nothing is audited", f"is it immutable? `lsattr {path}`")


def _secrecy(path: str, status: os.stat_result) -> Iterator[Diagnosis]:
    if status.st_uid not in (0, os.geteuid()):
        yield problem(f"{path} belongs to user {status.st_uid}, who may change it", f"`chown root:root {path}`")
    if status.st_mode & 0o077:
        yield warning(f"{path} may be read or written by others", f"`chmod 0600 {path}`")


def _content(path: str, last: list[bytes]) -> Iterator[Diagnosis]:
    bad = sum(not _is_entry(line) for line in last if line.endswith(b"\n"))
    if last and not last[-1].endswith(b"\n"):
        yield warning(f"the last line of {path} is cut off (power loss?)", "nothing to do: the next entry repairs it")
    if bad:
        what = f"{bad} of the last {len(last)} lines of {path} are not valid entries"
        yield warning(what, "`emupin audit verify` names them; an interrupted line stays in the trail")
    elif last:
        yield ok(f"{path} ends in whole entries")


def check_rotated(machine: Machine) -> Iterator[Diagnosis]:
    """Every older file of the trail can be read, which says nothing where it can. Raises HostError."""
    folder, name = os.path.split(AUDIT)
    others = [each for each in machine.names(folder) if each.startswith(f"{name}.") and each.endswith(FOREIGN)]
    if others:
        what = f"{others[0]} and {len(others) - 1} more" if len(others) > 1 else others[0]
        cure = "let logrotate compress with gzip, bzip2 or xz; `emupin audit verify <(zstdcat FILE)` reads such a file"
        yield warning(f"no `audit` command finds {what} in {machine.path(folder)}: compressed by another program", cure)


def check_kept(machine: Machine) -> Iterator[Diagnosis]:
    """What the last entries were decided from is kept, so that they can be decided again. Raises HostError."""
    entries = [json.loads(line) for line in last_lines(machine) if _is_entry(line)]
    named = [(kind, entry[key]) for entry in entries for key, kind in KEPT.items() if isinstance(entry.get(key), str)]
    digests = dict.fromkeys(named)
    lost = [digest for kind, digest in digests if not _is_kept(machine, kind, digest)]
    if lost:
        what = f"{len(lost)} of {len(digests)} policies and topologies that the last entries name are not kept"
        yield warning(f"{what}: `audit replay` cannot decide those entries again", f"restore {STATE} from a backup")
    else:
        yield ok("all policies and topologies that the last entries name are kept")


def _is_kept(machine: Machine, kind: str, digest: str) -> bool:
    return any(machine.exists(place("", kind, f"{digest}.{form}")) for form in ("yaml", "json"))


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _last(machine: Machine) -> str | None:
    """The youngest file of the trail that is not compressed, as seen from the root folder. Raises HostError."""
    names = map(os.path.basename, lines.find(machine.root))
    found = [name for name in names if os.path.splitext(name)[1] not in lines.OPENERS]
    return f"{os.path.dirname(AUDIT)}/{found[-1]}" if found else None


def last_lines(machine: Machine) -> list[bytes]:
    """The last lines of the trail, each with its end; none where there is no trail. Raises HostError."""
    path = _last(machine)
    if path is None:
        return []
    try:
        with open(machine.path(path), "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            found = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(machine.path(path), error) from None
    return found[1:] if start else found  # The first may be cut.


def check_currency(machine: Machine) -> Iterator[Diagnosis]:
    """The trail has what was decided last: each decision claims CPUs, then writes its entry. Raises EmupinError."""
    for finding in chain.pending(machine.root):
        yield problem(f"the audit trail lacks entries: {finding.text}", "see syslog for the reason")
    machine.status(f"{RUN}/claims")  # The ledger itself takes one that it must not read for none.
    since = [claim.since for claim in Ledger.look(machine.root, None).claims.values()]
    uptime = machine.text("/proc/uptime")
    if not since or not uptime:
        yield ok("no CPUs are claimed: no decision is missing from the audit trail")
        return
    decided = machine.now - float(uptime.split()[0]) + max(since)
    path = _last(machine)
    status = machine.status(path) if path else None
    if status is None or status.st_mtime < decided - SLACK:
        yield problem(
            "the audit trail is older than the last decision: entries are missing",
            "see syslog for the reason; or it was rotated or restored by hand",
        )
    else:
        yield ok("the audit trail has the last decision")


# -- the clock ---------------------------------------------------------------------------------------------------------


def check_clock(machine: Machine) -> Iterator[Diagnosis]:
    """The clock is not behind what was written under it, and kept in time. Raises HostError."""
    late = list(_from_the_future(machine))
    if late:
        what = f"the clock is or was slow: {late[0]} has a time in the future"
        yield warning(what, "set the clock (`timedatectl`); entries written in the meantime carry a wrong time")
    else:
        yield ok("no file has a time in the future")
    answer = machine.ask(("timedatectl", "show", "-p", "NTPSynchronized", "--value"))
    if answer is None or answer.output not in ("yes", "no"):
        yield unknown("whether the clock is synchronised", "run `timedatectl` or `chronyc tracking`")
    elif answer.output == "no":
        yield warning(
            "the clock is not synchronised: trails of several hosts cannot be compared", "set up chrony or NTP"
        )
    else:
        yield ok("the clock is synchronised")


def _from_the_future(machine: Machine) -> Iterator[str]:
    for path in (AUDIT, *POLICIES, f"{RUN}/claims", f"{STATE}/last-good"):
        status = machine.status(path)
        if status and status.st_mtime > machine.now + SLACK:
            yield machine.path(path)
    last = [line for line in last_lines(machine) if _is_entry(line)]
    try:
        when = datetime.strptime(json.loads(last[-1])["time"], "%Y-%m-%dT%H:%M:%S.%fZ") if last else None
    except (ValueError, KeyError, TypeError):
        return  # An entry without a time is not for the clock.
    if when and when.replace(tzinfo=timezone.utc).timestamp() > machine.now + SLACK:
        yield f"the last entry of {machine.path(AUDIT)}"
