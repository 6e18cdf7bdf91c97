"""What one node says of itself, as one archive that stands for it elsewhere: its own commands' answers, and its trail.

node.json        who and when, and how each command ended
host.json        `emupin host --snapshot`
status.json      `emupin status --json`
doctor.json      `emupin doctor --json`
head             `emupin audit head`
guests/UUID.xml  each guest that runs or is defined, reduced to what a decision reads
var/             the audit trail, and the policies and topologies that it refers to, in their places
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
from emupin.base.errors import EmupinError
from emupin.base.files import AUDIT, STATE, read_bytes
from emupin.fleet.excerpt import excerpt
from emupin.live.lookup import FOLDERS, SUFFIX, read_guest

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
    """Write the archive of the node below `root`; what could not be had, a line each. Raises OSError."""
    node: dict[str, Any] = {"emupin_collection": VERSION, "version": __version__, "build": build(), "collected": time}
    node["host"] = os.uname().nodename
    problems: list[str] = []
    with tarfile.open(fileobj=file, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
        for name, words in COMMANDS.items():
            done = _ask(words)
            node[name] = {"status": done.returncode, "remarks": done.stderr.decode(errors="replace").splitlines()}
            _add(archive, name, done.stdout)
        problems += _add_guests(archive, root)
        if trails:
            problems += _add_trail(archive, root)
        node["problems"] = problems
        _add(archive, "node.json", json.dumps(node, indent=1).encode() + b"\n")
    return problems


def _ask(words: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    """A command of ours, in a process of its own: whatever becomes of it, the others go on."""
    command = [sys.executable, "-I", "-c", START, os.path.dirname(LIBRARY), *words]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 2, b"", f"took more than {SECONDS} seconds\n".encode())


def _add_guests(archive: tarfile.TarFile, root: str) -> Iterator[str]:
    """Copy what a decision reads of each guest; what cannot be read, a line each."""
    try:
        for path in _guests(root):
            try:
                data = excerpt(read_bytes(path), path)
                _add(archive, f"guests/{read_guest(data, path, frozenset()).uuid or hex_digest(data)}.xml", data)
            except FileNotFoundError:
                continue  # It ended meanwhile.
            except EmupinError as error:
                yield str(error)
    except OSError as error:
        yield f"{error.filename}: cannot be read: {error.strerror}"


def _guests(root: str) -> Iterator[str]:
    """libvirt's file of every guest, of running ones that of the running one. Raises OSError."""
    seen: set[str] = set()
    for folder in FOLDERS:
        names = sorted(os.listdir(root + folder)) if os.path.isdir(root + folder) else []
        yield from (f"{root}{folder}/{name}" for name in names if name.endswith(SUFFIX) and name not in seen)
        seen.update(names)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode = len(data), 0o600
    archive.addfile(facts, io.BytesIO(data))


def _add_trail(archive: tarfile.TarFile, root: str) -> Iterator[str]:
    """Copy the trail's folder and what it refers to; what cannot be read, a line each."""
    for folder in (os.path.dirname(AUDIT), f"{STATE}/policies", f"{STATE}/topologies"):
        for name in sorted(os.listdir(root + folder)) if os.path.isdir(root + folder) else []:
            path = f"{root}{folder}/{name}"
            try:
                _add(archive, f"{folder.lstrip('/')}/{name}", read_bytes(path))
            except OSError as error:
                yield f"{path}: cannot be read: {error.strerror}"
