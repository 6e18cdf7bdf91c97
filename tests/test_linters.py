"""Linters and type checker, and what no file of the project may contain."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import suites
from checkout import CHECKOUT, files

from emupin import __version__

COMMANDS = {
    "ruff check": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "--diff", "."],
    "mypy": ["mypy", "--strict"],
}


def need(program: str) -> str:
    """The program's path, from the interpreter's folder first."""
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which(program, path=search)
    suites.need("this", "" if found else f"{program} (tests/run.sh installs it)")
    return str(found)


def check(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [need(program), *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_linter_is_content(name: str) -> None:
    if name == "mypy" and sys.version_info < (3, 10):
        pytest.skip("mypy takes the syntax of the Python that runs it, and this one has no X | Y for types yet")
    check(*COMMANDS[name])


def shell_scripts() -> list[str]:
    found = [path for path in files() if path.suffix == ".sh" or first_line(path).endswith((b"/sh", b" bash"))]
    return sorted(str(path.relative_to(CHECKOUT)) for path in found)


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline().rstrip()


def test_all_scripts_are_seen() -> None:
    assert {"install.sh", "tests/run.sh", "hooks/qemu", "packaging/place-hook", ".ci/run"} <= set(shell_scripts())


def test_shellcheck_is_content() -> None:
    check("shellcheck", "--external-sources", *shell_scripts())


MACHINE_PATHS = "|".join(("home", "root", "work", "Users"))
REGISTRIES = "|".join(("py" + "pi", "files.python" + "hosted", "deb." + "debian", "archive." + "ubuntu"))
FORBIDDEN = re.compile(
    rf"(?<![\w.*}}$)>\]-])/(?:{MACHINE_PATHS})/[\w.]|\b(?:{REGISTRIES})\.(?:org|com)\b".encode(), re.IGNORECASE
)


def test_no_file_names_a_path_of_some_machine_or_a_package_registry() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:100]!r}"
        for path in files()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_forbidden"),
    [
        ("/" + "home/someone/x", True),
        ("'/" + "work/main'", True),
        ("path=/" + "root/x", True),
        ("https://py" + "pi.org/simple", True),
        ("self.home/'x'", False),
        ("/proc/1/root/etc", False),
        ("folder/work/x", False),
    ],
)
def test_the_pattern_finds_what_it_should(text: str, is_forbidden: bool) -> None:
    assert bool(FORBIDDEN.search(text.encode())) == is_forbidden


def test_module_runs_from_the_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emupin", "--version"],
        cwd=CHECKOUT / "src", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["emupin", __version__]
