"""The hook file: there, ours, runnable, once, and in a place where libvirt looks and nobody replaces it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base.build import reinstall
from emupin.base.files import WRITABLE_BY_OTHERS
from emupin.doctor.diagnosis import Diagnosis, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine

MARKER = "# emupin: places the emulator threads of libvirt QEMU guests"
"""The hook's second line, by which it is recognised."""

HOOKS = "/etc/libvirt/hooks"
MAIN = f"{HOOKS}/qemu"
FOLDER = f"{HOOKS}/qemu.d"
OURS_IN_FOLDER = f"{FOLDER}/50-emupin"
INSTALL = reinstall()
NO_HOOK = "there is no hook"

OWNERS = {
    "/etc/vdsm": "oVirt's VDSM",
    "/usr/libexec/vdsm": "oVirt's VDSM",
    "/etc/cloudstack/agent": "CloudStack's agent",
}
"""Who keeps `hooks/qemu` as its own, by a folder that tells of it."""


@dataclass(frozen=True)
class HookFile:
    """A file that libvirt runs, or would run if it were executable."""

    path: str
    text: str
    is_link: bool
    mode: int
    owner: int
    changed: float
    """When its content, mode or name changed, in seconds since 1970."""

    @property
    def is_ours(self) -> bool:
        return self.text.replace("\r", "").split("\n", 2)[1:2] == [MARKER]

    @property
    def has_carriage_returns(self) -> bool:
        """The kernel takes one behind the `#!` line for a part of the interpreter's name."""
        return "\r" in self.text

    @property
    def is_mixed(self) -> bool:
        """Ours with something before it, or copied into somebody else's."""
        return not self.is_ours and MARKER in self.text.splitlines()

    @property
    def is_executable(self) -> bool:
        return bool(self.mode & 0o111)

    def setting(self, name: str) -> str:
        """The value of a line `NAME=VALUE` as install.sh writes it; empty where there is none."""
        for line in self.text.splitlines():
            if line.startswith(f"{name}="):
                value = line[len(name) + 1 :]
                return value[1:-1].replace("'\\''", "'") if value[:1] == "'" else value
        return ""


def hook_files(machine: Machine) -> list[HookFile]:
    """Every file in the places where libvirt looks, in the order in which it runs them. Raises HostError."""
    paths = [MAIN, *(f"{FOLDER}/{name}" for name in machine.names(FOLDER))]
    return [file for path in paths if (file := _read(machine, path))]


def _read(machine: Machine, path: str) -> HookFile | None:
    """The file at `path`; None where there is none, or a folder. A link that leads nowhere is an empty file."""
    entry, status = machine.status(path, follow=False), machine.status(path)
    if entry is None or (status and not stat.S_ISREG(status.st_mode)):
        return None
    is_link = stat.S_ISLNK(entry.st_mode)
    facts = status or entry
    mode = stat.S_IMODE(status.st_mode) if status else 0
    return HookFile(path, machine.text(path) or "", is_link, mode, facts.st_uid, entry.st_ctime)


def installed(files: list[HookFile]) -> HookFile | None:
    """Our hook; of several the one that libvirt runs first."""
    ours = [file for file in files if file.is_ours]
    return next((file for file in ours if file.is_executable), ours[0] if ours else None)


def check_place(machine: Machine) -> Iterator[Diagnosis]:
    """It is installed, once, and not where another package puts its own. Raises HostError."""
    files = hook_files(machine)
    hook = installed(files)
    yield from (
        problem(f"{file.path} is emupin's hook mixed with something else", f"remove emupin's part, then {INSTALL}")
        for file in files
        if file.is_mixed
    )
    if hook is None:
        yield _not_installed({file.path: file for file in files})
        return
    copies = [file.path for file in files if file.is_ours and file.is_executable]
    if len(copies) > 1:
        yield problem(f"several copies of the hook run: {', '.join(copies)}", f"{INSTALL}: it leaves only one")
    else:
        yield ok(f"installed as {hook.path}")
    owner = next((owner for folder, owner in OWNERS.items() if machine.exists(folder)), None)
    if hook.path == MAIN and owner:
        cure = f"move it to {OURS_IN_FOLDER} (libvirt 6.5.0 or later) and reload libvirt"
        yield warning(f"{MAIN} belongs to {owner}, whose next update will replace it", cure)


def _not_installed(others: dict[str, HookFile]) -> Diagnosis:
    if OURS_IN_FOLDER in others and MAIN in others:
        what = f"the hook is not installed: {MAIN} and {OURS_IN_FOLDER} belong to somebody else"
        return problem(what, f"move {OURS_IN_FOLDER} away, then {INSTALL}")
    if MAIN in others and others[MAIN].text == "":
        return problem(f"{MAIN} is empty, or a link that leads nowhere", f"remove it, then {INSTALL}")
    if MAIN in others:
        what = f"the hook is not installed; {MAIN} belongs to somebody else"
        return problem(what, f"{INSTALL}: it then goes to {OURS_IN_FOLDER}, which libvirt 6.5.0 and later runs, too")
    return problem("the hook is not installed", INSTALL)


def check_file(machine: Machine) -> Iterator[Diagnosis]:
    """It is a real file that root alone can change and libvirt can run. Raises HostError."""
    hook = installed(hook_files(machine))
    if hook is None:
        yield skipped("the hook's mode and owner", NO_HOOK)
        return
    faults = [*_faults(hook), *_open_ways(machine, hook.path)]
    yield from faults or [ok(f"{hook.path} is a real file, executable, and only root can change it")]


def _open_ways(machine: Machine, path: str) -> Iterator[Diagnosis]:
    """Folders in which others could put a file of their own in the place of `path`. Raises HostError."""
    for folder in machine.ways(path):
        status = machine.status(folder)
        if status is None:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in (0, os.geteuid()):
            what = f"{machine.path(folder)} belongs to user {status.st_uid}, who can replace what root runs from there"
            yield problem(what, f"`chown root:root {machine.path(folder)}`")
        elif mode & WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
            what = f"{machine.path(folder)} is writable by others (mode {mode:o}): they can replace {path}"
            yield problem(what, f"`chmod go-w {machine.path(folder)}`")


def _faults(hook: HookFile) -> Iterator[Diagnosis]:
    if hook.has_carriage_returns:
        yield problem(
            f"{hook.path} has carriage returns (CRLF line ends): every start fails with status 127",
            f"{INSTALL}: it replaces the file",
        )
    if hook.is_link:
        yield problem(
            f"{hook.path} is a link; AppArmor lets libvirt run only real files in {HOOKS}",
            f"{INSTALL}: it puts a real file there",
        )
    if not hook.is_executable:
        yield problem(f"{hook.path} is not executable, so libvirt does not run it", f"`chmod 0755 {hook.path}`")
    if hook.owner not in (0, os.geteuid()):
        yield problem(
            f"{hook.path} belongs to user {hook.owner}, who can change what root runs",
            f"`chown root:root {hook.path}`",
        )
    if hook.mode & WRITABLE_BY_OTHERS:
        yield problem(f"{hook.path} is writable by others (mode {hook.mode:o})", f"`chmod 0755 {hook.path}`")


def check_neighbours(machine: Machine) -> Iterator[Diagnosis]:
    """Nobody runs after it who could undo what it does to migrated and restored guests. Raises HostError."""
    files = [file for file in hook_files(machine) if file.is_executable]
    hook = installed(files)
    if hook is None:
        yield skipped("hooks that run after it", NO_HOOK)
        return
    later = [file.path for file in files[files.index(hook) + 1 :] if not file.is_ours]
    if later:
        yield warning(
            f"{', '.join(later)} runs after {hook.path} and can override its output for migrated and restored guests",
            "if it prints a domain XML, rename it so that it runs first",
        )
    else:
        yield ok("no other hook runs after it")
