"""packaging/build: which files it packages, and where it works. The wheel stands for all: it is made in seconds."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import suites

CHECKOUT = Path(__file__).parents[2]
PACKAGED = (
    "packaging", "install.sh", "src", "deploy", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "setup.cfg",
)  # fmt: skip
UNCOMMITTED = "emupin/uncommitted.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a module that is not committed."""
    suites.need("a package", suites.missing(["git"]))
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in PACKAGED:
        subprocess.run(["cp", "-R", CHECKOUT / name, folder], check=True)
    (folder / ".gitignore").write_text("__pycache__\n*.egg-info\n")
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "test"]):
        subprocess.run([*git, *words], check=True)
    (folder / "src" / UNCOMMITTED).write_text("x = 1\n")
    return folder


def build(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A wheel from there, in `out` beside it, by a user who trusts nobody else's checkout."""
    plain = {"PATH": os.environ["PATH"], "HOME": str(checkout.parent), "GIT_CONFIG_NOSYSTEM": "1", **environment}
    words = [str(checkout / "packaging/build"), "wheel", str(checkout.parent / "out")]
    return subprocess.run(words, env=plain, capture_output=True, text=True, check=False)


def packaged(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(done.stdout.strip()).namelist()


def test_committed_files_alone_are_packaged(checkout: Path) -> None:
    names = packaged(build(checkout))
    assert "emupin/cli.py" in names
    assert UNCOMMITTED not in names


def test_without_git_every_file_is_packaged(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / "elsewhere")
    assert UNCOMMITTED in packaged(build(checkout))


def test_a_checkout_that_git_refuses_is_not_packaged(checkout: Path) -> None:
    done = build(checkout, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "git config --global --add safe.directory" in done.stderr
    assert f"git names no commit of {checkout}: see above; build as its owner" in done.stderr.splitlines()[-1]


def test_a_blank_in_the_name_of_the_temporary_folder_does_no_harm(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "with a blank").mkdir()
    assert "emupin/cli.py" in packaged(build(checkout, TMPDIR=str(tmp_path / "with a blank")))
