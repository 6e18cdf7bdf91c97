"""Whose a thread is, on a pretended host: this guest's, another's, the kernel's, a process's, or nobody's any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from guests import many

from emupin.guest.threads import read_status_file
from emupin.trace.thieves import FOREIGN, GONE, KERNEL, OWN, PROCESS, Roster, Thief

FIRST, SECOND = 10_000, 10_100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    many(tmp_path, 2)
    return tmp_path


def roster(root: Path) -> Roster:
    return Roster(str(root), "nfv-000", read_status_file(str(root), "nfv-000"))


def task(root: Path, tid: int, tgid: int, name: str, flags: int = 0, comm: str | None = None) -> None:
    folder = root / f"proc/{tid}"
    folder.mkdir(exist_ok=True)
    (folder / "status").write_text(f"Name:\t{name}\nTgid:\t{tgid}\nCpus_allowed_list:\t0\n")
    (folder / "stat").write_text(f"{tid} ({name}) S 1 1 1 0 -1 {flags} 0\n")
    (folder / "comm").write_text((comm or name) + "\n")


def whose(root: Path, tid: int, name: bytes) -> Thief:
    found = roster(root)
    found.look({tid: name})
    return found.known[tid]


def test_threads_of_this_guest_are_known_by_what_they_are(root: Path) -> None:
    kinds = {(thief.whose, thief.kind) for thief in roster(root).known.values()}
    assert {whose for whose, _ in kinds} == {OWN}
    assert {kind for _, kind in kinds} >= {"emulator", "vcpu"}


def test_a_thread_of_this_guest_that_was_born_meanwhile_is_found_by_its_cgroup(root: Path) -> None:
    found = roster(root)
    old = root / f"proc/{FIRST}/task/{FIRST}"
    new = root / f"proc/{FIRST}/task/10042"
    new.mkdir()
    for file in old.iterdir():
        (new / file.name).write_bytes(file.read_bytes().replace(b"10000", b"10042"))
    task(root, 10042, FIRST, "worker")
    found.look({10042: b"worker"})
    assert (found.known[10042].whose, found.known[10042].kind) == (OWN, "emulator")


def test_another_guests_thread_is_named_with_its_guest(root: Path) -> None:
    (root / "run/libvirt/qemu/nfv-001.pid").write_text(f"{SECOND}\n")
    task(root, SECOND, SECOND, "qemu-system-x86")
    found = whose(root, SECOND, b"qemu-system-x86")
    assert (found.whose, found.guest, found.kind) == (FOREIGN, "nfv-001", "emulator")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kworker/14:1", Thief(KERNEL, "", "kworker")),
        ("ksoftirqd/14", Thief(KERNEL, "", "ksoftirqd/14")),
        ("vhost-10000", Thief(OWN, "vhost", "vhost-10000")),
        ("vhost-10100", Thief(FOREIGN, "vhost", "vhost-10100", guest="nfv-001")),
        ("vhost-999", Thief(KERNEL, "", "vhost-999")),
    ],
)
def test_kernel_threads(root: Path, name: str, expected: Thief) -> None:
    (root / "run/libvirt/qemu/nfv-001.pid").write_text("10100")
    task(root, 77, 77, name, 0x00200000)
    assert whose(root, 77, name.encode()) == expected


def test_a_process_that_calls_itself_like_a_kernel_thread_is_a_process(root: Path) -> None:
    task(root, 77, 77, "kworker/0:1")
    assert whose(root, 77, b"kworker/0:1") == Thief(PROCESS, "", "kworker/0:1")


def test_a_thread_is_named_with_its_process(root: Path) -> None:
    task(root, 70, 70, "java")
    task(root, 77, 70, "GC Thread#0")
    assert whose(root, 77, b"GC Thread#0") == Thief(PROCESS, "", "java: GC Thread#0")


def test_who_has_ended_has_the_name_that_the_kernel_saw(root: Path) -> None:
    assert whose(root, 99, b"sh") == Thief(GONE, "", "sh")
    found = roster(root)
    task(root, 77, 77, "sshd")
    found.look({77: b"sshd"})
    (root / "proc/77/status").unlink()
    found.look({77: b"other"})
    assert found.known[77] == Thief(PROCESS, "", "sshd"), "what it was is known already"
