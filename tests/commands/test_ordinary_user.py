"""What an ordinary user gets on a node where the policy and the guests may be read, and state and trail are root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import SOURCES
from guests import Machine
from hosts import Host

POLICY = "etc/emupin/policy.yaml"
SECRET = ("var/lib/emupin", "var/log/emupin", "run/emupin")


@pytest.fixture
def folder() -> Iterator[Path]:
    """With `root`, a node where one guest runs, in line, and `out`, where anybody may write."""
    if os.getuid():
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(SOURCES, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        host = Host(folder / "root")
        host.set_policy()
        (host.root / POLICY).chmod(0o644)
        Machine(host)
        for place in SECRET:
            (host.root / place).mkdir(parents=True, exist_ok=True)
            (host.root / place).chmod(0o700)
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        yield folder


def as_nobody(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"EMUPIN_ROOT": str(folder / "root"), "PYTHONPATH": str(folder / "src")}
    return subprocess.run(
        ["/usr/bin/python3", "-B", "-m", "emupin", *words], env=environment, cwd="/",
        user="nobody", group="nogroup", extra_groups=[], capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["status"], ["status", "--prometheus"], ["apply", "--all"]], ids=" ".join)
def test_a_policy_that_cannot_be_kept_is_no_trouble(folder: Path, words: list[str]) -> None:
    done = as_nobody(folder, *words)
    assert "compiled" not in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("text", "mode"), [("version: 1\nrules: []\n", 0o600), ("version: 0\n", 0o644)])
def test_whether_a_policy_is_in_force_is_left_to_root(folder: Path, text: str, mode: int) -> None:
    (folder / "root" / POLICY).write_text(text)
    (folder / "root" / POLICY).chmod(mode)
    done = as_nobody(folder, "status")
    assert done.returncode == 2
    assert "only root can see whether there is an earlier valid one" in done.stderr
    assert ("; run it as root" in done.stderr) is (mode == 0o600)
    assert "no policy is in force" not in done.stderr


def test_a_collection_has_all_that_may_be_read(folder: Path) -> None:
    archive = folder / "out/x.tgz"
    done = as_nobody(folder, "collect", "-o", archive)
    assert done.returncode == 2
    trail = folder / "root/var/log/emupin"
    assert f"{trail}: cannot be listed: Permission denied; run it as root" in done.stderr
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert "node.json" in names
    assert sum(name.startswith("guests/") for name in names) == 1


def test_an_archive_that_cannot_be_completed_does_not_stay(folder: Path) -> None:
    log = folder / "root/var/log/emupin"
    log.chmod(0o755)
    (log / "audit.jsonl").write_bytes(os.urandom(1 << 20))
    (log / "audit.jsonl").chmod(0o644)
    archive = folder / "out/x.tgz"
    limited = f'ulimit -f 500; exec /usr/bin/python3 -B -m emupin collect -o "{archive}"'
    environment = {"EMUPIN_ROOT": str(folder / "root"), "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(["sh", "-c", limited], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"{archive}: cannot be written: File too large; name another place for it\n",
    )
    assert not archive.exists()
