"""What one node says of itself, as one archive that stands for it elsewhere: its own commands' answers, and its trail.

node.json        who and when, and how each command ended
host.json        `emupin host --snapshot`
status.json      `emupin status --json`
doctor.json      `emupin doctor --json`
head             `emupin audit head`
guests/UUID.xml  each guest that runs or is defined, reduced to what a decision reads
var/             the audit trail, and the policies and topologies that it refers to, in their places; without the trail
                 the policy in force alone
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

from emupin import __version__
from emupin.base.build import LIBRARY, build
from emupin.base.digest import hex_digest
from emupin.base.errors import EmupinError, HostError
from emupin.base.files import AUDIT, STATE, list_folder, read_bytes
from emupin.base.kept import POLICIES_KEPT
from emupin.fleet.excerpt import excerpt
from emupin.live.lookup import read_guest
from emupin.node.guestfiles import FOLDERS, SUFFIX
from emupin.trail.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

VERSION = 1
"""Of the archive's form."""

COMMANDS = {
    "host.json": ("host", "--snapshot"),
    "status.json": ("status", "--json"),
    "doctor.json": ("doctor", "--json"),
    "head": ("audit", "head"),
}
SECONDS = 300
"""For one of the commands."""

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from emupin.cli import main; sys.exit(main())"


def write(file: IO[bytes], root: str, time: str, trails: bool) -> list[str]:
    """Write the archive of the node below `root`; what could not be had, a line each.

    Raises OSError where the archive cannot be written.
    """
    node: dict[str, Any] = {"emupin_collection": VERSION, "version": __version__, "build": build(), "collected": time}
    node["host"] = os.uname().nodename
    problems: list[str] = []
    answers: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
        for name, words in COMMANDS.items():
            done = _ask(words)
            node[name] = {"status": done.returncode, "remarks": done.stderr.decode(errors="replace").splitlines()}
            answers[name] = done.stdout
            _add(archive, name, done.stdout)
        _add_guests(archive, root, problems)
        if trails:
            _add_trail(archive, root, problems)
        else:
            _add_policy(archive, root, answers["status.json"])
        node["problems"] = problems
        _add(archive, "node.json", json.dumps(node, indent=1).encode() + b"\n")
    return problems


def _ask(words: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    """A command of ours, in a process of its own: whatever becomes of it, the others go on."""
    command = [sys.executable, "-I", "-c", START, os.path.dirname(LIBRARY), *words]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        trouble = f"took more than {SECONDS} seconds"
    except OSError as error:
        trouble = f"cannot be run: {error.strerror}"
    return subprocess.CompletedProcess(command, 2, b"", f"{trouble}\n".encode())


def _add_guests(archive: tarfile.TarFile, root: str, problems: list[str]) -> None:
    """Copy what a decision reads of each guest; of running ones libvirt's file of the running one."""
    seen: set[str] = set()
    for folder in FOLDERS:
        names = [name for name in _names(root + folder, problems) if name.endswith(SUFFIX) and name not in seen]
        seen.update(names)
        for path, data in _read(root + folder, names, problems):
            try:
                kept = excerpt(data, path)
                key = read_guest(kept, path, frozenset()).uuid or hex_digest(kept)
            except EmupinError as error:
                problems.append(str(error))
                continue
            _add(archive, f"guests/{key}.xml", kept)


def _add_trail(archive: tarfile.TarFile, root: str, problems: list[str]) -> None:
    """Copy the trail's folder and what it refers to."""
    for folder in (os.path.dirname(AUDIT), f"{STATE}/policies", f"{STATE}/topologies"):
        for path, data in _read(root + folder, _names(root + folder, problems), problems):
            _add(archive, path[len(root) + 1 :], data)


def _names(folder: str, problems: list[str]) -> list[str]:
    try:
        return list_folder(folder)
    except HostError as error:
        problems.append(str(error))
        return []


def _read(folder: str, names: list[str], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """The path and the bytes of each file; a FIFO would be waited for."""
    for path in (f"{folder}/{name}" for name in names):
        if os.path.exists(path) and not os.path.isfile(path):
            continue
        try:
            yield path, read_bytes(path)
        except FileNotFoundError:
            continue  # The guest has ended meanwhile.
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode = len(data), 0o600
    archive.addfile(facts, io.BytesIO(data))


def _add_policy(archive: tarfile.TarFile, root: str, status: bytes) -> None:
    """Copy the policy in force: a new one is compared with it."""
    try:
        path, data = Archive((root + STATE,)).file(POLICIES_KEPT, json.loads(status)["policy"])
    except (EmupinError, ValueError, KeyError):  # There is none, or `status` has said what is wrong.
        return
    _add(archive, os.path.relpath(path, root or "/"), data)
