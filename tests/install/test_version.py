"""One version in every place, and a name for every build of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emupin import __version__
from emupin.base.build import LIBRARY, SHOWN, build

CHECKOUT = Path(__file__).parents[2]
PLACES = (
    "src/emupin/__init__.py",
    "CHANGELOG.md",
    "packaging/debian/changelog",
    "packaging/emupin.spec",
    "deploy/ansible/galaxy.yml",
)


def version(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "packaging/version"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_places_agree() -> None:
    done = version(CHECKOUT, f"v{__version__}")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n"), done.stderr


def test_a_release_of_another_version_is_refused() -> None:
    assert version(CHECKOUT, "v9.9.9").returncode == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_left_behind_is_named(place: str, tmp_path: Path) -> None:
    for path in ("packaging/version", *PLACES):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / path, tmp_path / path)
    text = (tmp_path / place).read_text()
    (tmp_path / place).write_text(text.replace(__version__, "0.0.1", 1))
    done = version(tmp_path)
    assert done.returncode == 1
    assert f"0.0.1        {place}\n" in done.stderr


def test_the_build_is_what_git_calls_the_folder(tmp_path: Path) -> None:
    copy = shutil.copytree(LIBRARY, tmp_path / "emupin", ignore=shutil.ignore_patterns("__pycache__"))
    git = ("git", "-C", str(tmp_path), "-c", "core.autocrlf=false")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all", "--force", "emupin"], check=True)
    tree = subprocess.run([*git, "write-tree"], capture_output=True, text=True, check=True).stdout.strip()
    folder = subprocess.run([*git, "rev-parse", f"{tree}:emupin"], capture_output=True, text=True, check=True).stdout
    assert build(str(copy)) == build() == folder[:SHOWN]


def test_a_changed_byte_is_another_build_and_byte_code_is_not(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/module.py").write_text("x = 1\n")
    before = build(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/module.pyc").write_bytes(b"code")
    (tmp_path / "gone/__pycache__").mkdir(parents=True)
    assert build(str(tmp_path)) == before
    (tmp_path / "inner/module.py").write_text("x = 2\n")
    assert build(str(tmp_path)) != before
