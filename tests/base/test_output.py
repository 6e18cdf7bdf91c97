"""What `-o FILE` names, the same for every command that has it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from command import emupin
from hosts import Host, domain_xml
from made_traces import trace, vcpu

from emupin.base import output
from emupin.trace import saved

COMMANDS = {
    "report": ("audit", "report"),
    "status": ("status", "--prometheus"),
    "host": ("host", "--snapshot"),
    "trace": ("trace", "./saved.json", "--json"),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    host = Host(tmp_path / "root")
    host.set_policy()
    host.call("prepare", domain_xml())
    monkeypatch.chdir(tmp_path)
    Path("saved.json").write_text(json.dumps(saved.to_json(trace(vcpu(1)))))
    return host.root


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_what_is_no_file_is_written_to_and_stays(words: tuple[str, ...], root: Path) -> None:
    os.mkfifo("fifo")
    with subprocess.Popen(["cat", "fifo"], stdout=subprocess.PIPE) as reader:
        assert emupin(root, *words, "-o", "fifo").returncode == 0
        assert reader.communicate()[0]
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "link"])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_stdout_under_each_of_its_names(words: tuple[str, ...], name: str, root: Path) -> None:
    Path("link").symlink_to("/proc/self/fd/1")
    done = emupin(root, *words, "-o", name)
    assert (done.returncode, done.stdout != b"", Path("link").is_symlink()) == (0, True, True)


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_link_s_target_is_replaced_with_its_mode_kept(words: tuple[str, ...], root: Path) -> None:
    Path("file").write_text("old")
    Path("file").chmod(0o640)
    old = os.stat("file").st_ino
    Path("link").symlink_to("file")
    assert emupin(root, *words, "-o", "link").returncode == 0
    new = os.stat("file")
    assert (Path("link").is_symlink(), new.st_ino != old, stat.S_IMODE(new.st_mode)) == (True, True, 0o640)
    assert sorted(os.listdir()) == ["file", "link", "root", "saved.json"]


def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with suppress(ZeroDivisionError), output.opened(str(path)) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_a_report_is_as_private_as_the_trail(root: Path) -> None:
    assert emupin(root, "audit", "report").returncode == 0
    assert stat.S_IMODE(os.stat("report.html").st_mode) == 0o600
