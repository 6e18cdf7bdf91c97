"""The command as a user starts it: a process, with a root folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"

PINNED = b"""\
<domain type='kvm'>
  <name>%s</name>
  <vcpu>2</vcpu>
  <cputune>
    <vcpupin vcpu='0' cpuset='4'/>
    <vcpupin vcpu='1' cpuset='5'/>
    <emulatorpin cpuset='4-5'/>
  </cputune>
</domain>
"""
BEFORE, AFTER = b"<emulatorpin cpuset='4-5'/>", b"<emulatorpin cpuset='4'/>"

POLICY = """\
version: 1
rules:
  - name: nfv
    match: {name: "nfv-*"}
    placement: ["vcpu:0"]
  - name: impossible
    match: {name: "bad-*"}
    placement: ["vcpu:7", "cpus:5"]
  - name: warned
    match: {name: "warned-*"}
    placement: ["cpus:5"]
    checks: {vcpu_overlap: warn}
"""


def guest(name: str = "nfv-1") -> bytes:
    """A guest with two pinned vCPUs whose emulator threads may run on both CPUs."""
    return PINNED % name.encode()


def automatic(name: str = "nfv-1") -> bytes:
    """A guest whose vCPUs go where numad says once it is asked, at the start."""
    return b"<domain type='kvm'><name>%s</name><vcpu placement='auto'>2</vcpu></domain>\n" % name.encode()


def make_root(folder: Path, online: str = "0-7", policy: str | None = POLICY) -> Path:
    """The file tree of a host with the CPUs `online`."""
    cpus = folder / "sys/devices/system/cpu/online"
    cpus.parent.mkdir(parents=True)
    cpus.write_text(online + "\n")
    if policy is not None:
        (folder / "etc/emupin").mkdir(parents=True)
        (folder / "etc/emupin/policy.yaml").write_text(policy)
    return folder


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "EMUPIN_ROOT": str(root), "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"}


def emupin(
    root: Path, *args: str | Path, data: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `emupin` with `args` and `data` on stdin."""
    command = [sys.executable, "-m", "emupin", *map(str, args)]
    return subprocess.run(
        command, input=data, capture_output=True, env=environment(root), cwd=cwd, timeout=60, check=False
    )
