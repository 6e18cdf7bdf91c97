"""The interpreter that the hook starts, the library that it loads, and the modules beside the standard ones."""

from __future__ import annotations

import ast
import importlib.util
import os
import stat
import sys
from itertools import accumulate
from typing import TYPE_CHECKING

import emupin
from emupin.base.files import POLICIES, WRITABLE_BY_OTHERS
from emupin.doctor.diagnosis import Diagnosis, ok, problem, skipped, unknown, warning
from emupin.doctor.hook import INSTALL, NO_HOOK, hook_files, installed
from emupin.doctor.machine import unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.doctor.machine import Machine

PYTHON = "/usr/bin/python3"
OLDEST = (3, 9)
PACKAGE = "emupin"
ENTRY = "hook"
"""The module that the hook starts with."""

VERSION = "import sys; print(*sys.version_info[:2], sys.implementation.cache_tag)"


def interpreter(machine: Machine) -> str:
    hook = installed(hook_files(machine))
    return (hook and hook.setting("python")) or PYTHON


def check_interpreter(machine: Machine) -> Iterator[Diagnosis]:
    """There is an interpreter, and it is young enough. Raises HostError."""
    python = interpreter(machine)
    status = machine.status(python)
    if status is None or not status.st_mode & 0o111:
        yield problem(f"{python}, which the hook starts, is missing", "install python3 (3.9 or later)")
        return
    answer = machine.ask((python, "-I", "-S", "-c", VERSION))
    if answer is None:
        yield unknown(f"the version of {python}", f"`{python} --version`: 3.9 or later is needed")
    elif answer.status:
        yield problem(f"{python} does not start: {answer.output[-200:]}", "reinstall python3")
    else:
        major, minor, _ = answer.output.split()
        young = (int(major), int(minor)) >= OLDEST
        what = f"{python} is Python {major}.{minor}"
        yield ok(what) if young else problem(f"{what}, too old for emupin", "install Python 3.9 or later")


def check_modules(machine: Machine) -> Iterator[Diagnosis]:
    """PyYAML, where the policy is YAML, and libvirt's module. Raises HostError."""
    yaml = any(machine.exists(path) for path in POLICIES if path.endswith(".yaml"))
    if yaml or not any(machine.exists(path) for path in POLICIES):
        yield _module(
            machine,
            "yaml",
            problem if yaml else warning,
            "PyYAML is missing: a new or changed policy.yaml cannot be read",
            "install python3-yaml (Debian, Ubuntu) or python3-pyyaml (RHEL, Fedora), or write policy.json",
        )
    yield _module(
        machine,
        "libvirt",
        warning,
        "libvirt's Python module is missing: guests are placed, but libvirt's XML does not record it",
        "install python3-libvirt",
    )


def _module(machine: Machine, name: str, level: Callable[[str, str], Diagnosis], what: str, cure: str) -> Diagnosis:
    python = interpreter(machine)
    answer = machine.ask((python, "-I", "-c", f"import {name}"))
    if answer is None:
        return unknown(f"whether {python} has the module {name}", f"run `{python} -I -c 'import {name}'`")
    if answer.status == 0:
        return ok(f"{python} has the module {name}")
    return level(what, cure)


# -- the library -------------------------------------------------------------------------------------------------------


def library(machine: Machine) -> str | None:
    """The folder that the installed hook loads its modules from; None where there is no hook. Raises HostError."""
    hook = installed(hook_files(machine))
    if hook is None:
        return None
    return hook.setting("lib") or os.path.normpath(f"{os.path.dirname(hook.path)}/../src")


def check_library(machine: Machine) -> Iterator[Diagnosis]:
    """Every module that the hook may load is there, whole, and root's alone. Raises HostError."""
    folder = library(machine)
    if folder is None:
        yield skipped("the library", f"{NO_HOOK} that says where it is")
        return
    if not machine.exists(f"{folder}/{PACKAGE}"):
        yield problem(f"the library {folder}/{PACKAGE} is missing", INSTALL)
        return
    modules, broken = _closure(machine, f"{folder}/{PACKAGE}")
    if broken:
        yield problem(f"{folder}/{PACKAGE}: missing or damaged: {', '.join(sorted(broken))}", INSTALL)
    else:
        yield ok(f"{folder}/{PACKAGE} has all {len(modules)} modules that the hook may load")
    yield _trust(machine, folder, modules)
    yield _byte_code(machine, modules)
    here = os.path.realpath(os.path.dirname(emupin.__file__))
    if not machine.root and here != os.path.realpath(f"{folder}/{PACKAGE}"):
        yield warning(f"this command is {here}, the hook uses {folder}/{PACKAGE}", f"{INSTALL} to have one version")


def _closure(machine: Machine, package: str) -> tuple[list[str], set[str]]:
    """The module files that the entry module leads to, in every function of theirs; and names of bad ones."""
    wanted = [f"{ENTRY}.py", "__init__.py"]
    found: dict[str, str] = {}
    broken: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in found or name in broken:
            continue
        text = machine.text(f"{package}/{name}")
        try:
            tree = ast.parse(text or "")
        except (SyntaxError, ValueError):
            text = None
            tree = ast.Module([], [])
        if text is None:
            broken.add(name)
            continue
        found[name] = f"{package}/{name}"
        wanted += _imported(machine, package, tree)
    return list(found.values()), broken


def _imported(machine: Machine, package: str, tree: ast.Module) -> Iterator[str]:
    """The files of this package that a module imports: modules, and the rooms that they are in.

    What is imported from a room, or from the package itself, is a module: rooms hold no values of their own.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != PACKAGE or node.level:
            continue
        stem = (node.module or "").replace(".", "/")[len(PACKAGE) + 1 :]
        rooms = [*accumulate(stem.split("/"), "{}/{}".format)] if stem else []
        yield from (f"{room}/__init__.py" for room in rooms if machine.exists(f"{package}/{room}"))
        if stem and not machine.exists(f"{package}/{stem}"):
            yield f"{stem}.py"
        else:
            names = [alias.name for alias in node.names if not alias.name.startswith("__")]
            yield from (f"{stem}/{name}.py" if stem else f"{name}.py" for name in names)


def _trust(machine: Machine, folder: str, modules: list[str]) -> Diagnosis:
    """Root runs what is there: nobody else may write it."""
    for path in (folder, f"{folder}/{PACKAGE}", *modules):
        status = machine.status(path)
        if status and (status.st_uid not in (0, os.geteuid()) or status.st_mode & WRITABLE_BY_OTHERS):
            owner, mode = status.st_uid, stat.S_IMODE(status.st_mode)
            what = f"{path} can be changed by others (owner {owner}, mode {mode:o}), and root runs it"
            return problem(what, f"`chown -R root:root {folder}; chmod -R go-w {folder}`")
    return ok(f"only root can change {folder}")


def _byte_code(machine: Machine, modules: list[str]) -> Diagnosis:
    answer = machine.ask((interpreter(machine), "-I", "-S", "-c", VERSION))
    tag = answer.output.split()[-1] if answer and answer.status == 0 else sys.implementation.cache_tag
    if tag != sys.implementation.cache_tag:
        return unknown("whether the library is byte-compiled", f"run doctor with {interpreter(machine)}")
    stale = [os.path.basename(path) for path in modules if not _is_compiled(machine.path(path))]
    if stale:
        return warning(
            f"{len(stale)} of {len(modules)} modules are not byte-compiled: every call of the hook takes longer",
            f"{INSTALL}: it compiles them",
        )
    return ok("the library is byte-compiled")


def _is_compiled(path: str) -> bool:
    """Python takes the byte code without a look at the source's text: same magic number, time and size."""
    try:
        facts = os.stat(path)
        with open(importlib.util.cache_from_source(path), "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(path, error) from None
    stamp = (0, int(facts.st_mtime), facts.st_size)
    return head == importlib.util.MAGIC_NUMBER + b"".join((part & 0xFFFFFFFF).to_bytes(4, "little") for part in stamp)
