"""Tab in real shells: commands, options and the names of guests, from the parser itself."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import suites

Complete = Callable[[str, "dict[str, str]", Path], "list[str]"]

CHECKOUT = Path(__file__).parents[2]
COMPLETION = CHECKOUT / "packaging/completion"
GUESTS = ("instance-0000002a", "nfv-router 1", "nfv-web")

pytest.importorskip("argcomplete")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a shell on a node with guests, where the command `emupin` is the checkout's."""
    for folder, names in (("run/libvirt/qemu", GUESTS[:2]), ("etc/libvirt/qemu", GUESTS)):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / f"{name}.xml").write_text("")
    command = tmp_path / "bin/emupin"
    command.parent.mkdir()
    sources, python = shlex.quote(str(CHECKOUT / "src")), shlex.quote(sys.executable)
    command.write_text(f'#!/bin/sh\nPYTHONPATH={sources} exec {python} -m emupin "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "EMUPIN_ROOT": str(tmp_path), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def need(shell: str) -> str:
    suites.need("completion", suites.missing([shell]))
    return str(shutil.which(shell, path=suites.SYSTEM))


def in_bash(line: str, environment: dict[str, str], folder: Path) -> list[str]:
    script = """
        . "$1"
        COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9
        eval "COMP_WORDS=($2)"
        case $2 in *' ') COMP_WORDS+=('') ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _python_argcomplete emupin
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    words = [need("bash"), "-c", script, "bash", str(COMPLETION / "emupin.bash"), line]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return [word.rstrip() for word in done.stdout.splitlines()]


def in_fish(line: str, environment: dict[str, str], folder: Path) -> list[str]:
    script = "source $argv[1]; complete -C $argv[2]"
    words = [need("fish"), "--no-config", "-c", script, str(COMPLETION / "emupin.fish"), line]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return [word.partition("\t")[0].rstrip() for word in done.stdout.splitlines()]


ZSH = """PS1='> '; fpath=(%s $fpath); autoload -U compinit; compinit -u -D
compadd() { print -rl -- "$@" >~/found.new; mv ~/found.new ~/found; builtin compadd "$@" }
"""


def in_zsh(line: str, environment: dict[str, str], folder: Path) -> list[str]:
    """What an interactive shell on a terminal adds to its matches: zsh completes nowhere else."""
    main, other = pty.openpty()
    found = Path(environment["HOME"]) / "found"
    found.unlink(missing_ok=True)
    zsh = [need("zsh"), "-f", "-i"]
    with subprocess.Popen(zsh, env=environment, cwd=folder, stdin=other, stdout=other, stderr=other) as shell:
        os.close(other)
        os.write(main, (ZSH % shlex.quote(str(COMPLETION))).encode() + line.encode() + b"\t")
        deadline = time.monotonic() + 60
        while not found.exists() and time.monotonic() < deadline:
            if select.select([main], [], [], 0.1)[0]:  # A terminal that nobody reads stops the shell.
                os.read(main, 65536)
        shell.kill()
        os.close(main)
    return [word.rstrip() for word in found.read_text().splitlines() if word != "--"]


SHELLS = pytest.mark.parametrize("complete", [in_bash, in_fish, in_zsh])


@SHELLS
def test_commands_are_completed(complete: Complete, environment: dict[str, str], tmp_path: Path) -> None:
    assert {"apply", "advise", "audit"} <= set(complete("emupin a", environment, tmp_path))


@SHELLS
def test_options_of_a_command_below_another_are_completed(
    complete: Complete, environment: dict[str, str], tmp_path: Path
) -> None:
    assert {"--policy", "--host", "--against"} <= set(complete("emupin policy test --", environment, tmp_path))


@SHELLS
def test_names_of_guests_are_completed(complete: Complete, environment: dict[str, str], tmp_path: Path) -> None:
    assert "instance-0000002a" in complete("emupin status inst", environment, tmp_path)[-1]
    assert "nfv-web" in complete("emupin explain nfv-w", environment, tmp_path)[-1]


def test_what_is_a_number_or_a_time_offers_no_files(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "seven.txt").write_text("")
    assert in_bash("emupin audit list --since ", environment, tmp_path) in ([], [""])
    assert "seven.txt" in in_bash("emupin rewrite ", environment, tmp_path)


def test_without_argcomplete_tab_offers_nothing_and_says_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "argcomplete.py").write_text("raise ImportError('not here')\n")
    asked = {**environment, "_ARGCOMPLETE": "1", "COMP_LINE": "emupin a", "COMP_POINT": "8"}
    done = subprocess.run(
        [sys.executable, "-m", "emupin", "--version"],
        env={**asked, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}/src"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
