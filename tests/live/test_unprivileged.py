"""What an ordinary user is told of a host whose policy and guests are root's: nothing false, and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import environment
from guests import Machine
from hosts import PROJECT, Host, python

NOBODY = "65534"


@pytest.fixture
def root() -> Iterator[Path]:
    """A host with a guest; pytest's own folders are closed to others."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv")
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        host = Host(root)
        host.set_policy()
        Machine(host)
        (root / "run/libvirt/qemu/nfv-1.xml").chmod(0o600)
        yield root
    finally:
        shutil.rmtree(root)


def as_nobody(root: Path, *words: str) -> list[str]:
    """The complaints; each sentence with what to do, once."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*user, "test", "-r", PROJECT / "src/emupin/cli.py"], check=False).returncode:
        pytest.skip("needs a checkout that everybody may read")
    done = subprocess.run(
        [*user, python(), "-m", "emupin", *words],
        env=environment(root), cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert "Errno" not in done.stderr
    assert all(line.count("Permission denied; run it as root") == 1 for line in lines), lines
    return [line.replace(str(root), "").partition(": cannot")[0] for line in lines]


STATUS = "/run/libvirt/qemu/nfv-1.xml"
FORMER = "/var/lib/emupin/former/5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], ["/etc/emupin/policy.yaml", STATUS]),
        (["apply", "--all"], ["/etc/emupin/policy.yaml"]),
        (["apply", "--undo", "--all"], [f"nfv-1: live XML: {STATUS}", f"nfv-1: persistent XML: {FORMER}"]),
    ],
    ids=["status", "apply", "undo"],
)
def test_who_is_not_root_is_told_so(root: Path, words: list[str], said: list[str]) -> None:
    last_good = root / "var/lib/emupin/last-good"
    last_good.parent.mkdir(parents=True, mode=0o700)
    last_good.write_text("0.yaml")
    (root / "var/lib/emupin").chmod(0o700)
    assert as_nobody(root, *words) == said
