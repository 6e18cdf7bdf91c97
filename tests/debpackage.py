"""The Debian package of the checkout, for the tests that install it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from checkout import CHECKOUT

PROGRAMS = ("dpkg-buildpackage", "dh", "dh_python3", "fakeroot", "git")
WORKED_ON = ("packaging", "install.sh", "src", "hooks", "examples", "README.md", "CHANGELOG.md")
"""Taken as they are here, committed or not."""
OLDER = "src/emupin/older.py"


class Packages(NamedTuple):
    older: Path
    """The same with a module more, which an upgrade must take away."""
    current: Path


def build(folder: Path) -> Packages:
    """Both packages, in `folder`. Raises CalledProcessError."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", CHECKOUT, clone], check=True)
    for name in WORKED_ON:
        subprocess.run(["cp", "-R", CHECKOUT / name, clone], check=True)
    (clone / OLDER).write_text('"""Gone in the next version."""\n')
    older = _built(clone, folder / "older")
    (clone / OLDER).unlink()
    current = _built(clone, folder / "current")
    shutil.rmtree(clone)
    return Packages(older, current)


def _built(clone: Path, out: Path) -> Path:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", clone, "add", "--all"], check=True)
    subprocess.run(["git", "-C", clone, *who, "commit", "--quiet", "--allow-empty", "-m", "test"], check=True)
    done = subprocess.run([clone / "packaging/build", "deb", out], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip()).rename(out / "emupin.deb")
