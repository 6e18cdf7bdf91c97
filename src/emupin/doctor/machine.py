"""The host that is looked at: its files below a root folder, and what only a command or a system call can tell."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Ask = Callable[[Sequence[str]], "Answer | None"]

SECONDS = 10
"""How long a command may take to answer."""
LONGEST = 1 << 20
"""Of a file that is read as text, in bytes."""
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Answer:
    """What a command has said, on both its streams."""

    status: int
    output: str


@dataclass(frozen=True)
class Machine:
    """A host: `/`, or a file tree that looks like one and whose commands cannot be asked."""

    root: str
    now: float
    """Seconds since 1970."""
    ask: Ask
    """Runs a command of the host; None where it is not there, or takes too long."""
    label: Callable[[str], str | None]
    """The SELinux label of a file; None where it has none."""
    disk: Callable[[str], os.statvfs_result]

    def path(self, path: str) -> str:
        """`path` of the host as this process sees it."""
        return self.root + path

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root + path)

    def text(self, path: str) -> str | None:
        """A file's text; None where it is not there. Raises HostError."""
        try:
            with open(self.root + path, "rb") as file:
                return os.fsdecode(file.read(LONGEST))
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None
        except OSError as error:
            raise unreadable(self.root + path, error) from None

    def names(self, path: str) -> list[str]:
        """The names in a folder, in libvirt's order (of bytes); none where it is not there. Raises HostError."""
        try:
            return sorted(os.listdir(self.root + path), key=os.fsencode)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(self.root + path, error) from None

    def ways(self, path: str) -> list[str]:
        """The folders on the way to `path`, the nearest first: who can change one can replace what lies below it."""
        found = []
        while path != "/":
            path = os.path.dirname(path)
            found.append(path)
        return found

    def status(self, path: str, follow: bool = True) -> os.stat_result | None:
        """What stat(2) says; None where it is not there. Raises HostError."""
        try:
            return os.stat(self.root + path, follow_symlinks=follow)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None
        except OSError as error:
            raise unreadable(self.root + path, error) from None


def unreadable(path: str, error: OSError) -> HostError:
    hint = "run it as root" if os.geteuid() else "find out what denies root access (a security module?)"
    return HostError(path, f"cannot be examined: {error.strerror}", hint)


def this_machine(root: str) -> Machine:
    """The host below `root`, empty for `/`: another host's commands cannot be asked here."""
    return Machine(root, time.time(), _silent if root else _ask, _label, os.statvfs)


def _silent(_command: Sequence[str]) -> None:
    return None


def _ask(command: Sequence[str]) -> Answer | None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": SEARCHED, "LC_ALL": "C", "HOME": "/"},
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Answer(done.returncode, os.fsdecode(done.stdout).strip())


def _label(path: str) -> str | None:
    try:
        return os.fsdecode(os.getxattr(path, "security.selinux")).rstrip("\0")
    except OSError:
        return None
