"""The command line around its commands: version, help, errors, streams that are closed, full or broken."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import emupin, environment, guest, make_root

from emupin import __version__, cli
from emupin.base.build import build
from emupin.base.text import printable, printable_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root")


def shell(root: Path, script: str) -> subprocess.CompletedProcess[bytes]:
    """`script` in a shell, with the command as `emupin` and a guest in `$guest`."""
    xml = root / "guest.xml"
    xml.write_bytes(guest())
    env = {**environment(root), "guest": str(xml)}
    command = f'emupin() {{ {shlex.quote(sys.executable)} -m emupin "$@"; }}\n'
    return subprocess.run(["bash", "-c", command + script], capture_output=True, env=env, timeout=60, check=False)


def test_version(root: Path) -> None:
    assert emupin(root, "--version").stdout.decode() == f"emupin {__version__} (build {build()})\n"


def test_help_needs_neither_lxml_nor_yaml(root: Path) -> None:
    hidden = "import sys; sys.modules.update(lxml=None, yaml=None); from emupin.cli import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, env=environment(root), check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"rewrite" in done.stdout


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All that do something, those of `audit` and `policy` included."""
    inner = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for each in inner:
        for command in each.choices.values():
            yield from commands(command)


def test_every_command_tells_its_exit_status() -> None:
    found = list(commands(cli.parser()))
    assert len(found) > 15
    assert [each.prog for each in found if not re.search("^status: 0", each.epilog or "", re.MULTILINE)] == []


@pytest.mark.parametrize(
    "args", [(), ("nonsense",), ("rewrite", "--jobs", "0"), ("rewrite", "--check", "--in-place", "x")]
)
def test_usage_errors_have_status_2(root: Path, args: tuple[str, ...]) -> None:
    done = emupin(root, *args)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"usage:")


@pytest.mark.parametrize(
    ("args", "word"),
    [((), "rewrite "), (("audit",), "verify "), (("policy",), "check ")],
    ids=["top", "audit", "policy"],
)
def test_without_a_command_all_of_them_are_shown(root: Path, args: tuple[str, ...], word: str) -> None:
    done = emupin(root, *args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert word in done.stderr.decode()
    assert "required" not in done.stderr.decode()


def test_error_is_one_line(root: Path) -> None:
    done = emupin(root, "rewrite", "--policy", root / "nowhere.yaml", data=guest())
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"nowhere.yaml: cannot be read: No such file or directory" in done.stderr


def test_no_policy_installed(tmp_path: Path) -> None:
    done = emupin(make_root(tmp_path / "root", policy=None), "rewrite", data=guest())
    assert done.returncode == 2
    assert b"etc/emupin/policy.yaml: no policy is installed; write one, or give --policy FILE" in done.stderr


def test_reader_that_went_away_is_no_error_message(root: Path) -> None:
    done = shell(root, "emupin rewrite $guest | true; echo ${PIPESTATUS[0]}")
    assert done.stdout in (b"0\n", b"141\n")  # a pipe may take all before its reader ends
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_stdout(root: Path) -> None:
    done = shell(root, "emupin rewrite $guest >/dev/full")
    assert (done.returncode, done.stderr) == (
        2,
        b"stdout: cannot be written: No space left on device; the output is incomplete\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words", ["--help", "host --help", "host --json", "collect", "collect -o -", "host --snapshot"]
)
def test_every_command_says_that_stdout_is_full(root: Path, words: str) -> None:
    done = shell(root, f"emupin {words} >/dev/full")
    assert (done.returncode, done.stderr.count(b"\n"), done.stderr[:25]) == (2, 1, b"stdout: cannot be written")


def test_an_archive_on_stdout(root: Path) -> None:
    folder = root / "var/log/emupin"
    (folder / "old").mkdir(parents=True)
    os.mkfifo(folder / "fifo")
    files = "var/lib/.*|head|host.json|status.json|doctor.json|node.json"
    done = shell(
        root, f"emupin collect 2>&1 >a.tgz; echo $?; tar tzf a.tgz | grep -Evx '{files}'".replace("a.tgz", f"{root}/a")
    )
    assert (done.stdout, done.stderr) == (b"0\n", b"")
    cut = shell(root, "emupin collect | head -c 10 | wc -c; echo ${PIPESTATUS[0]}")
    assert (cut.stdout.split(), cut.stderr) in [([b"10", code], b"") for code in (b"0", b"141")]


@pytest.mark.parametrize(
    ("script", "status", "stdout"),
    [
        ("emupin rewrite $guest >&-", 2, b""),
        ("emupin collect >&-", 2, b""),
        ("emupin rewrite <&-", 2, b""),
        ("emupin rewrite $guest.missing 2>&-", 2, b""),
        ("emupin rewrite --in-place $guest <&- >&- 2>&-", 0, b""),
    ],
)
def test_closed_streams_are_never_files(root: Path, script: str, status: int, stdout: bytes) -> None:
    done = shell(root, script)
    assert (done.returncode, done.stdout) == (status, stdout)
    assert b"Traceback" not in done.stderr


def test_interrupt_while_waiting_for_stdin(root: Path) -> None:
    command = [sys.executable, "-m", "emupin", "rewrite"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(root), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), guest())
        wait_until_read(process.stdin.fileno())
        process.send_signal(signal.SIGINT)
        output = process.communicate()
    assert (process.returncode, output) == (130, (b"", b""))


def wait_until_read(pipe: int) -> None:
    """Until the pipe is empty: then its reader waits for more."""
    while fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4) != b"\0" * 4:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü", "plain äöü"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\udcff", "\\xff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_lines() -> None:
    assert printable_lines(b"a\tb\r\n\x1b[2J\xff\n") == b"a\tb\\r\n\\x1b[2J\\xff\n"
