"""Whatever the hook is stuck in, libvirt goes on: it answers others meanwhile or soon, and no guest dies of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .expect import FIRST, emulator_cpus, outcomes, policy, start
from .guests import Guest
from .host import HOOKS, PrivateHost, eventually

LIMIT = 11.0
TRAIL = "/var/log/emupin"
NO_FORK = "#include <errno.h>\n#include <unistd.h>\npid_t fork(void) { errno = EAGAIN; return -1; }\n"
DEAF = """
import os, socket, sys
os.unlink("/dev/log")
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.setblocking(False)
sender.connect("/dev/log")
try:
    while True:
        sender.send(b"x" * 1000)
except BlockingIOError:
    print("full", flush=True)
sys.stdin.read()
"""
"""A log that nobody reads, and no room is left in."""

LOCKS = """
import fcntl, os, sys
fcntl.flock(os.open("/var/log/emupin", os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def running(host: PrivateHost) -> Guest:
    """A guest that runs where its policy wants it, recorded, so that nobody is left at work."""
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert emulator_cpus(host, guest) == {FIRST}
    assert eventually(lambda: ("record", "recorded") in outcomes(host, guest))
    return guest


def goes_on(host: PrivateHost, running: Guest) -> None:
    """Another guest starts, libvirtd comes back to the one that runs, and answers within the limit of one call each."""
    other = Guest("nfv-2")
    began = time.monotonic()
    start(host, other)
    assert host.virsh("list").stdout.count("running") == 2
    calls = 2  # `prepare` and `started`
    assert time.monotonic() - began < calls * LIMIT + 5
    host.restart_libvirtd()
    began = time.monotonic()
    assert eventually(lambda: host.virsh("list").stdout.count("running") == 2, LIMIT)
    assert time.monotonic() - began < LIMIT
    assert host.virsh("domstate", running.uuid).stdout.strip() == "running"


def begin(host: PrivateHost, code: str, word: str) -> subprocess.Popen[str]:
    """A Python inside that has said `word`, and ends with its stdin."""
    process = host.begin("/usr/bin/python3", "-c", code)
    assert process.stdout
    assert process.stdout.readline() == f"{word}\n"
    return process


def test_a_log_that_nobody_reads(host: PrivateHost, running: Guest) -> None:
    deaf = begin(host, DEAF, "full")
    goes_on(host, running)
    assert [entry["op"] for entry in host.audit() if entry["op"] == "started"] == ["started", "started"]
    deaf.communicate()


@pytest.fixture
def frozen(host: PrivateHost, tmp_path: Path) -> Iterator[PrivateHost]:
    """The trail is on a file system of its own, which is frozen: who writes there is in state D."""
    if not Path("/dev/loop-control").exists() or not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin"):
        pytest.skip("needs loop devices and mkfs.ext4")
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 8 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image], check=True)
    device = subprocess.run(
        ["losetup", "-f", "--show", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        host.run(
            "mknod", device, "b", str(os.major(Path(device).stat().st_rdev)), str(os.minor(Path(device).stat().st_rdev))
        )
        host.run("mount", device, TRAIL)
        host.run("fsfreeze", "-f", TRAIL)
        yield host
    finally:
        host.run("fsfreeze", "-u", TRAIL, check=False)
        host.run("umount", "-l", TRAIL, check=False)
        host.path(f"{TRAIL}/audit.jsonl").unlink()  # The rest of it is on the file system that is gone.
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_frozen_trail(running: Guest, frozen: PrivateHost) -> None:
    goes_on(frozen, running)
    assert any("took more than 10 seconds or was killed" in line for line in frozen.syslog())


@pytest.mark.usefixtures("running")
def test_a_stopped_python(host: PrivateHost) -> None:
    """Every Python of the hook is stopped while it waits for its turn at the trail."""
    lock = begin(host, LOCKS, "locked")
    began = time.monotonic()
    restart = host.begin("virsh", "-q", "start", define_another(host))
    assert eventually(lambda: stop_pythons(host))
    while restart.poll() is None:
        stop_pythons(host)
        time.sleep(0.05)
    assert restart.returncode == 0
    assert time.monotonic() - began < 2 * LIMIT + 5
    assert host.virsh("list").stdout.count("running") == 2
    lock.communicate()


def define_another(host: PrivateHost) -> str:
    guest = Guest("nfv-2")
    host.virsh("define", "/dev/stdin", input=guest.xml)
    return guest.uuid


def stop_pythons(host: PrivateHost) -> bool:
    """Stop the hook's Pythons; whether there was one."""
    pids = host.run("pgrep", "--full", "^/usr/bin/python3 .*-I -S -c", check=False).stdout.split()
    for pid in pids:
        host.run("kill", f"-{signal.SIGSTOP.value}", pid, check=False)
    return bool(pids)


def test_a_shell_that_cannot_fork(host: PrivateHost, running: Guest, tmp_path: Path) -> None:
    """pids.max reached, as far as the hook's shell sees it."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    (tmp_path / "shim.c").write_text(NO_FORK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    shutil.copy(tmp_path / "shim.so", host.path("/run/shim.so"))
    host.run("mv", f"{HOOKS}/qemu", f"{HOOKS}/behind")
    host.write(f"{HOOKS}/qemu", f'#!/bin/sh\nLD_PRELOAD=/run/shim.so exec {HOOKS}/behind "$@"\n', 0o755)
    host.set_policy(policy(on_failure="refuse"))
    goes_on(host, running)
