"""What tests have in common that take long, or need much of a machine: who asks for them, and what is missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IN_CI = os.environ.get("CI", "false") not in ("", "false")
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: an ordinary user's PATH lacks half of it."""
TCG_CPU = "max,cx16=off"
"""The CPU of a machine that QEMU emulates. With QEMU 7.2 a kernel died once of a double fault behind a cmpxchg16b:
its flags were half an address. Without that instruction the kernel takes a lock.
"""


def mark(items: Iterable[pytest.Item], folder: Path) -> list[pytest.Item]:
    """Give the tests below `folder` the marker of its name; those tests."""
    ours = [item for item in items if folder in item.path.parents]
    for item in ours:
        item.add_marker(folder.name)
    return ours


def skip_unless_asked(config: pytest.Config, items: Iterable[pytest.Item], folder: Path, takes: str) -> None:
    """Skip `items` unless pytest is given their folder, something below it, or its marker."""
    name = folder.name
    paths = [Path(argument.partition("::")[0]).parts for argument in config.args]
    if any(name in parts for parts in paths) or re.search(rf"\b{name}\b", config.option.markexpr or ""):
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason=f"takes {takes}: tests/run.sh tests/{name}"))


def need(what: str, lacks: str) -> None:
    """Skip where the machine `lacks` something, fail where nobody would read that."""
    if lacks and IN_CI:
        pytest.fail(f"{what} needs {lacks}", pytrace=False)
    if lacks:
        pytest.skip(f"needs {lacks}")


def lacking(programs: Sequence[str], root_for: str) -> str:
    """What this machine lacks of root, needed for `root_for`, and of the programs; empty where nothing."""
    return f"root, for {root_for}" if os.geteuid() else missing(programs)


def missing(programs: Sequence[str]) -> str:
    """Those of the programs that this machine lacks; empty where none."""
    names = [program for program in programs if not shutil.which(program, path=SYSTEM)]
    return f"the programs {', '.join(names)} (tests/run.sh installs them)" if names else ""
