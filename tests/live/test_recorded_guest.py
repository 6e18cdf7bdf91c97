"""Guests recorded on cgroup v2 under real kernels, read by the code that enforces, and compared with pretended ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import FakeGuest, FakeThread, Host
from microvm import recording

from emupin.guest.cgroups import emulator_group
from emupin.guest.threads import check_process, read_status_file, read_threads
from emupin.node.enforce import Enforced, enforce

if TYPE_CHECKING:
    from microvm.recording import Recording

RECORDED = sorted(recording.FIXTURES.glob("cgroup-v2-*.json"))
MACHINE = "/machine/qemu-1-nfv-1.libvirt-qemu"
KINDS = {
    ("qemu-system-x86", "emulator", "0"),
    ("IO mon_iothread", "emulator", "0"),
    ("vhost-PID", "vhost", "0"),
    ("CPU 0/TCG", "vcpu", "0"),
    ("CPU 1/TCG", "vcpu", "1"),
    ("IO iothread1", "iothread", "1"),
}


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> Recording:
    return recording.read(request.param)


def test_both_shapes_of_vhost_workers_are_recorded() -> None:
    assert [path.stem for path in RECORDED] == ["cgroup-v2-linux-6.1", "cgroup-v2-linux-6.12"]


def test_threads_are_told_apart(recorded: Recording, tmp_path: Path) -> None:
    root, pid = str(recording.unpack(recorded, tmp_path)), recording.pid(recorded)
    threads = read_threads(root, pid, read_status_file(root, recording.NAME))
    found = [(thread.name.replace(str(pid), "PID"), thread.kind, *map(str, thread.allowed)) for thread in threads]
    assert set(found) == KINDS
    assert len(found) == len(KINDS) + 1, "the RCU thread has the main thread's name"


def test_the_emulators_cgroup_is_found(recorded: Recording, tmp_path: Path) -> None:
    root, pid = str(recording.unpack(recorded, tmp_path)), recording.pid(recorded)
    assert emulator_group(root, pid) == f"{root}/sys/fs/cgroup{MACHINE}/emulator"


def test_a_guest_in_line_needs_no_change(recorded: Recording, tmp_path: Path) -> None:
    root, pid = str(recording.unpack(recorded, tmp_path)), recording.pid(recorded)
    status = read_status_file(root, recording.NAME)
    check_process(root, pid, uuid_of(recorded))
    assert enforce(root, status, frozenset({0}), never) == Enforced(0, ())


def test_pretended_guests_on_v2_have_the_files_of_recorded_ones(recorded: Recording, tmp_path: Path) -> None:
    real, pid = recording.unpack(recorded, tmp_path / "real"), recording.pid(recorded)
    fake = pretended(tmp_path / "fake", recorded)
    for path in sorted(fake.rglob("*")):
        name = path.relative_to(fake).as_posix()
        if path.is_file() and name.startswith((f"proc/{pid}/", "sys/fs/cgroup/")):
            if name != f"proc/{pid}/status":  # the main thread's, recorded below task/
                assert (real / name).is_file(), name
            if name.endswith("/status"):
                assert set(keys(path)) <= set(keys(real / f"proc/{pid}/task/{pid}/status")), name
            if name.endswith("/cgroup"):
                assert unified(path) == unified(real / name), name
    assert unified(fake / "proc/self/mountinfo", " - cgroup2 ") != ""
    assert unified(real / "proc/self/mountinfo", " - cgroup2 ") != ""


def pretended(root: Path, recorded: Recording) -> Path:
    """A guest made of the recorded one's threads."""
    threads, pid = {}, recording.pid(recorded)
    for path, text in recorded["files"].items():
        found = re.fullmatch(rf"/proc/{pid}/task/(\d+)/cgroup", path)
        if found:
            name = recorded["files"][f"/proc/{pid}/task/{found[1]}/comm"].strip()
            threads[int(found[1])] = FakeThread(name, {0}, text.strip().rpartition("/")[2])
    cpusets: dict[str, set[int]] = {thread.group: {0} for thread in threads.values()}
    FakeGuest(Host(root), "v2", threads, MACHINE, pid=pid, cpusets=cpusets)
    return root


def keys(path: Path) -> list[str]:
    return [line.partition(":")[0] for line in path.read_text().splitlines()]


def unified(path: Path, mark: str = "0::") -> str:
    """The line of the unified hierarchy."""
    return next((line for line in path.read_text().splitlines() if mark in line), "")


def uuid_of(recorded: Recording) -> str:
    found = re.search(r"<uuid>(.*)</uuid>", recorded["files"][f"/run/libvirt/qemu/{recording.NAME}.xml"])
    assert found
    return found[1]


def never(tid: int, cpus: frozenset[int]) -> None:
    raise AssertionError(f"thread {tid} was put on {sorted(cpus)}")
