"""The daemon that calls the hook: which one runs, whether it looks where the hook is, and has looked since."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from emupin.base.files import LIBVIRT_RUN, POLICIES, RUN
from emupin.doctor.diagnosis import Diagnosis, ok, problem, skipped, unknown, warning
from emupin.doctor.hook import FOLDER, HOOKS, NO_HOOK, HookFile, hook_files, installed
from emupin.doctor.trail import SLACK, last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine

DAEMONS = ("libvirtd", "virtqemud")
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
READS_FOLDER = (6, 5)
"""The first libvirt that runs the files in `qemu.d`."""

TICK = os.sysconf("SC_CLK_TCK")
STARTTIME = 22 - 3
"""Of the fields of /proc/PID/stat behind the name, the number of the one that says when it was started."""

BY_LIBVIRT = ("prepare", "migrate", "restore", "started", "reconnect", "attach")
"""Operations in the audit trail that only a call by libvirt leaves there."""


@dataclass(frozen=True)
class Process:
    name: str
    pid: int
    started: float
    """Seconds since 1970."""


def daemons(machine: Machine) -> list[Process]:
    """The running daemons of the system, not those of an ordinary user's session. Raises HostError."""
    found = []
    for pid in machine.names("/proc"):
        name = (machine.text(f"/proc/{pid}/comm") or "").strip() if pid.isdigit() else ""
        if name in DAEMONS and _is_root(machine.text(f"/proc/{pid}/status") or ""):
            started = start_of(machine, int(pid))
            found += [Process(name, int(pid), started)] if started else []
    return found


def _is_root(status: str) -> bool:
    return status.partition("\nUid:")[2].split()[:1] in ([], ["0"])


def start_of(machine: Machine, pid: int) -> float | None:
    """When a process was started; None where it has ended, or its kernel does not say. Raises HostError."""
    line, uptime = machine.text(f"/proc/{pid}/stat"), machine.text("/proc/uptime")
    fields = (line or "").rpartition(")")[2].split()
    if len(fields) <= STARTTIME or not uptime:
        return None
    return machine.now - float(uptime.split()[0]) + int(fields[STARTTIME]) / TICK


def check_daemon(machine: Machine) -> Iterator[Diagnosis]:
    """One daemon runs, or is started when somebody asks. Raises HostError."""
    found = daemons(machine)
    names = sorted({process.name for process in found})
    if len(names) > 1:
        yield warning("both libvirtd and virtqemud run: each has its own guests", "stop and disable the one not used")
    elif names:
        yield ok(f"{names[0]} runs")
    elif any(machine.exists(path) for path in SOCKETS):
        yield ok("no daemon runs; its socket starts one on demand")
    else:
        yield problem("neither libvirtd nor virtqemud runs", "`systemctl start libvirtd` (or virtqemud.socket)")
    yield from (fault for process in found if (fault := _same_hooks(machine, process)))


def _same_hooks(machine: Machine, process: Process) -> Diagnosis | None:
    """Whether a daemon in a container sees the same hooks; None where it does, or that is not to be told."""
    try:
        theirs = os.stat(machine.path(f"/proc/{process.pid}/root{HOOKS}"))
        ours = os.stat(machine.path(HOOKS))
    except OSError:
        return None  # No container's root folder here, or not for us to see.
    if os.path.samestat(theirs, ours):
        return None
    what = f"{process.name} ({process.pid}) has another {HOOKS}: it runs in a container"
    return problem(what, "install emupin there, and run doctor there")


def check_version(machine: Machine) -> Iterator[Diagnosis]:
    """libvirt looks into the folder that the hook is in. Raises HostError."""
    hook = installed(hook_files(machine))
    version = _version(machine)
    in_folder = hook is not None and hook.path.startswith(FOLDER)
    if version is None:
        yield unknown("libvirt's version cannot be determined", "run `libvirtd --version` or `virtqemud --version`")
    elif in_folder and version < READS_FOLDER:
        yield problem(
            f"libvirt {_dotted(version)} does not look into {FOLDER}, where the hook is",
            f"upgrade libvirt to 6.5.0 or later, or make {HOOKS}/qemu call it",
        )
    else:
        yield ok(f"libvirt {_dotted(version)}{' looks into qemu.d' if version >= READS_FOLDER else ''}")


def _version(machine: Machine) -> tuple[int, ...] | None:
    for daemon in DAEMONS:
        answer = machine.ask((daemon, "--version"))
        words = answer.output.split() if answer and answer.status == 0 else []
        if words and all(part.isdigit() for part in words[-1].split(".")):
            return tuple(int(part) for part in words[-1].split("."))
    return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def check_reload(machine: Machine) -> Iterator[Diagnosis]:
    """libvirt looks for hooks when it starts and on SIGHUP; a first hook is not called before. Raises HostError."""
    files = [file for file in hook_files(machine) if file.is_executable]
    hook = installed(files)
    if hook is None:
        yield skipped("whether libvirt has found the hook", f"{NO_HOOK} that it could run")
        return
    found = daemons(machine)
    yield from (_noticed(machine, process, hook, files) for process in found)
    if not found:
        yield ok("libvirt finds the hook when it starts")


def _noticed(machine: Machine, process: Process, hook: HookFile, files: list[HookFile]) -> Diagnosis:
    who = f"{process.name} ({process.pid})"
    cure = f"`systemctl reload {process.name}`, or `kill -HUP {process.pid}`: guests are not affected"
    if any(file.changed <= process.started for file in files):
        return ok(f"{who} found the hook when it started")
    if _was_called(machine, process.started):
        return ok(f"{who} calls the hook: the audit trail has it")
    reloaded = _last_change(machine, process)
    if reloaded and reloaded >= int(hook.changed):
        return ok(f"{who} was reloaded after the hook was installed")
    if reloaded:
        return problem(f"{who} has not been reloaded since {hook.path} was installed, and may not know of it", cure)
    guest = _guest_without_hook(machine, hook)
    if guest:
        return problem(f"the guest {guest} was started after the hook was installed, and {who} did not call it", cure)
    return warning(f"{who} is older than {hook.path}, and nothing shows that it was reloaded since", cure)


def _was_called(machine: Machine, since: float) -> bool:
    """Whether the audit trail has a call by libvirt that is younger: who has found hooks once keeps calling them."""
    for line in last_lines(machine):
        try:
            entry = json.loads(line)
            when = datetime.strptime(entry["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # Not an entry: `check_trail` says so.
        if entry.get("op") in BY_LIBVIRT and when.timestamp() >= since:
            return True
    return False


def _last_change(machine: Machine, process: Process) -> int | None:
    """When systemd last saw the daemon start or reload, in seconds since 1970; None where it cannot tell."""
    properties = ("-p", "MainPID", "-p", "StateChangeTimestamp")
    answer = machine.ask(("systemctl", "show", "--timestamp=unix", *properties, f"{process.name}.service"))
    facts = dict(line.split("=", 1) for line in answer.output.splitlines() if "=" in line) if answer else {}
    stamp = facts.get("StateChangeTimestamp", "")
    if facts.get("MainPID") != str(process.pid) or not stamp[1:].isdigit():
        return None
    return int(stamp[1:])


def _guest_without_hook(machine: Machine, hook: HookFile) -> str | None:
    """A guest that was started with hook and policy in place, and that the hook's ledger is too old to know.

    `prepare` notes in the ledger where the guest's vCPUs will be, whether a rule takes it or not.
    """
    policies = [status.st_ctime for path in POLICIES if (status := machine.status(path))]
    if not policies:
        return None
    ledger = machine.status(f"{RUN}/claims")
    since = max(hook.changed, *policies, ledger.st_mtime + SLACK if ledger else 0)
    for name in machine.names(LIBVIRT_RUN):
        pid = (machine.text(f"{LIBVIRT_RUN}/{name}") or "").strip() if name.endswith(".pid") else ""
        started = start_of(machine, int(pid)) if pid.isdigit() else None
        if started and started > since:
            return name[:-4]
    return None
