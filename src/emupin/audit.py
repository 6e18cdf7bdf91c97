"""The audit trail: one JSON object a line for every decision, enforcement, record and refusal; and a line to syslog.

Nothing from outside `<cputune>` is written, but for the guest's name, its UUID and the facts that a rule looks at: a
domain XML carries passwords.
"""

from __future__ import annotations

import os
import time

from emupin import __version__, cpuset
from emupin.digest import hex_digest
from emupin.errors import HostError
from emupin.files import AUDIT, lock, make_private_folder, write_all
from emupin.jsonline import encode
from emupin.splice import apply, cputune_diff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.domain import Domain
    from emupin.hook import Decision
    from emupin.host import Host
    from emupin.jsonline import Json
    from emupin.situation import Others
    from emupin.splice import Edit


def now() -> str:
    """The time, UTC, RFC 3339, with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z"


def append(root: str, entry: dict[str, Json]) -> None:
    """Write `entry` behind the last whole line of the trail below `root`.

    A line that a power cut has torn stays in its place, ended, and is mentioned in a line of its own.
    Raises HostError where the entry is not in the file afterwards.
    """
    path = root + AUDIT
    try:
        make_private_folder(os.path.dirname(path))
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            lock(descriptor)
            _append(descriptor, _line(entry))
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = "make room, or mend its folder: until then nothing is audited"
        raise HostError(path, f"cannot be written: {error.strerror}", hint) from None


def _line(entry: dict[str, Json]) -> bytes:
    return encode(entry).encode("ascii") + b"\n"


def _append(descriptor: int, line: bytes) -> None:
    """One write at the end, taken back if the disk had room for a part of it only."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        mended: dict[str, Json] = {
            "time": now(),
            "host": os.uname().nodename,
            "op": "mend",
            "reason": "the line before was torn",
        }
        line = b"\n" + _line(mended) + line
    try:
        write_all(descriptor, line)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def entry(operation: str, outcome: str, decision: Decision, changes: list[Edit]) -> dict[str, Json]:
    """The entry for one decision; `changes` are those of its XML, if it has any."""
    guest, plan, data = decision.guest, decision.plan, decision.data
    before = hex_digest(data)
    return {
        "time": now(),
        "host": os.uname().nodename,
        "op": operation,
        "uuid": guest.uuid,
        "name": guest.name,
        "rule": plan.rule,
        "placement": plan.placement,
        "before": _text(guest.emulatorpin),
        "after": _text(guest.emulatorpin if plan.cpus is None else plan.cpus),
        "reason": plan.reason,
        "warnings": decision.warnings,
        "outcome": outcome,
        "diff": cputune_diff(data, guest, changes) if changes else [],
        "sha256_before": before,
        "sha256_after": hex_digest(apply(data, changes)) if changes else before,
        "policy": decision.policy.digest,
        "facts": facts(guest, decision.host, decision.others),
        "emupin": __version__,
    }


def failure(operation: str, outcome: str, name: str, decision: Decision | None, reason: str) -> dict[str, Json]:
    """The entry for trouble with the guest `name`, before or after there was a decision."""
    if decision:
        known = entry(operation, outcome, decision, [])
        return {**known, "after": known["before"], "reason": printable(reason)}
    return {
        "time": now(),
        "host": os.uname().nodename,
        "op": operation,
        "name": printable(name),
        "outcome": outcome,
        "reason": printable(reason),
        "emupin": __version__,
    }


def facts(guest: Domain, host: Host, others: Others) -> dict[str, Json]:
    """All that a decision has read of the guest, the host and the other guests; CPU lists as text."""
    return {
        "kind": guest.kind,
        "vcpus": guest.vcpus,
        "offline": cpuset.format(guest.offline),
        "cpuset": _text(guest.cpuset),
        "automatic": guest.automatic,
        "vcpupins": {str(vcpu): cpuset.format(pin) for vcpu, pin in guest.vcpupins.items()},
        "emulatorpin": _text(guest.emulatorpin),
        "iothreads": guest.iothreads,
        "iothreadpins": {str(iothread): cpuset.format(pin) for iothread, pin in guest.iothreadpins.items()},
        "realtime": cpuset.format(guest.realtime),
        "interfaces": None if guest.interfaces is None else sorted(guest.interfaces),
        "flavor": guest.flavor,
        "project": guest.project,
        "online": cpuset.format(host.online),
        "others": {
            "vcpus": _by_guest(others.vcpus),
            "dedicated": _by_guest(others.dedicated),
            "shared": _by_guest(others.shared),
            "previous": _text(others.previous),
        },
    }


def _by_guest(by_cpu: Mapping[int, str]) -> dict[str, Json]:
    """CPU lists by UUID, from UUIDs by CPU."""
    cpus: dict[str, list[int]] = {}
    for cpu, uuid in by_cpu.items():
        cpus.setdefault(uuid, []).append(cpu)
    return {uuid: cpuset.format(those) for uuid, those in cpus.items()}


def _text(cpus: frozenset[int] | None) -> str | None:
    return None if cpus is None else cpuset.format(cpus)


def log(root: str, message: str, trouble: bool = False) -> None:
    """One line to syslog, facility daemon: a change as notice, trouble as error.

    Nothing where `root` is not this machine: its syslog is not that host's.
    """
    if root:
        return
    import syslog

    syslog.openlog("emupin", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR if trouble else syslog.LOG_NOTICE, printable(message))


def printable(text: str) -> str:
    """`text` on one line: control characters and undecodable bytes, which a guest's name may hold, are escaped."""
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])
