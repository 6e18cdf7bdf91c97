"""AppArmor and SELinux: whether libvirt may run the hook, and the hook the interpreter."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.doctor.diagnosis import Diagnosis, ok, problem, skipped, unknown
from emupin.doctor.hook import HOOKS, NO_HOOK, hook_files, installed
from emupin.doctor.libvirtd import daemons
from emupin.doctor.python import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.hook import HookFile
    from emupin.doctor.machine import Machine

APPARMOR = "/sys/module/apparmor/parameters/enabled"
RUNNABLE = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", f"{HOOKS}/")
"""What libvirtd's AppArmor profile lets a hook execute."""

SELINUX = "/sys/fs/selinux"
BOOLEAN = "virt_hooks_unconfined"
CONFINED = "virt_hook_t"
"""How Fedora 40, RHEL 10 and later label the files in the hooks' folder."""


def check_apparmor(machine: Machine) -> Iterator[Diagnosis]:
    """AppArmor is off, or lets libvirtd run the hook and the interpreter. Raises HostError."""
    if (machine.text(APPARMOR) or "").strip() != "Y":
        yield ok("AppArmor is not in use")
        return
    found = daemons(machine)
    if not found:
        yield skipped("AppArmor's profile of libvirt", "no daemon runs")
    for process in found:
        label = (machine.text(f"/proc/{process.pid}/attr/current") or "").strip("\0\n ")
        if not label:
            yield unknown(f"which AppArmor profile {process.name} runs under", "run `aa-status`")
        elif label.endswith("(enforce)"):
            yield from _confined(machine, label)
        else:
            yield ok(f"AppArmor does not confine {process.name} ({label})")


def _confined(machine: Machine, label: str) -> Iterator[Diagnosis]:
    hook = installed(hook_files(machine))
    if hook is None:
        yield skipped(f"AppArmor ({label})", NO_HOOK)
        return
    paths = [hook.path, hook.setting("python") or PYTHON]
    outside = [path for path in paths if not _real(machine, path).startswith(RUNNABLE)]
    for path in outside:
        yield problem(
            f"AppArmor ({label}) does not let libvirt run {path}, which really is {_real(machine, path)}",
            f"use a real file in {HOOKS} or /usr/bin, or add a rule below /etc/apparmor.d/local",
        )
    if not outside:
        yield ok(f"AppArmor ({label}) lets libvirt run the hook")


def _real(machine: Machine, path: str) -> str:
    """The path of what `path` leads to, as the host sees it."""
    top = os.path.realpath(machine.root or "/").rstrip("/")
    return os.path.realpath(machine.path(path))[len(top) :]


def check_selinux(machine: Machine) -> Iterator[Diagnosis]:
    """SELinux is off, permissive, or lets libvirt run the hook. Raises HostError."""
    enforcing = machine.text(f"{SELINUX}/enforce")
    if enforcing is None:
        yield ok("SELinux is not in use")
        return
    if enforcing.strip() != "1":
        yield ok("SELinux is permissive")
        return
    hook = installed(hook_files(machine))
    if hook is None:
        yield skipped("SELinux labels", NO_HOOK)
        return
    yield _label(machine, hook)
    yield from _boolean(machine, hook)


def _label(machine: Machine, hook: HookFile) -> Diagnosis:
    cure = f"`restorecon -R {HOOKS}`"
    if machine.label(machine.path(hook.path)) is None:
        return problem(f"{hook.path} has no SELinux label", cure)
    answer = machine.ask(("matchpathcon", "-V", hook.path))
    if answer is None:
        return unknown(f"whether the SELinux label of {hook.path} is right", f"run `restorecon -nv {hook.path}`")
    if answer.status:
        return problem(f"the SELinux label is wrong: {answer.output}", cure)
    return ok(f"the SELinux label of {hook.path} is right")


def _boolean(machine: Machine, hook: HookFile) -> Iterator[Diagnosis]:
    """Where policies have the boolean, hooks are confined unless it is on, and its rules may forget virtqemud."""
    value = machine.text(f"{SELINUX}/booleans/{BOOLEAN}")
    if value is None:
        yield ok("this SELinux policy runs hooks unconfined")
        return
    if not value.startswith("1"):
        yield problem(f"SELinux confines hooks: {BOOLEAN} is off", f"`setsebool -P {BOOLEAN} on`")
    else:
        yield ok(f"{BOOLEAN} is on")
    if CONFINED in (machine.label(machine.path(hook.path)) or ""):
        yield from (_rule(machine, f"{each.name}_t") for each in daemons(machine) if each.name == "virtqemud")


def _rule(machine: Machine, domain: str) -> Diagnosis:
    cure = f"install a module with `(allow {domain} {CONFINED} (file (execute execute_no_trans)))` (semodule -i)"
    search = ("sesearch", "-A", "-s", domain, "-t", CONFINED, "-c", "file", "-p", "execute")
    answer = machine.ask(search)
    if answer is None or answer.status:
        return unknown(f"whether SELinux lets {domain} execute {CONFINED}", f"`{' '.join(search)}` shows it; {cure}")
    if "allow" not in answer.output:
        return problem(f"no SELinux rule lets {domain} execute {CONFINED}: the boolean names only virtnetworkd", cure)
    return ok(f"SELinux lets {domain} execute {CONFINED}")
