"""Why a machine cannot trace: each reason has its sentence. The kernel's files are pretended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from emupin.base.errors import TraceError
from emupin.trace import instance, tracefs

PLACE = "sys/kernel/tracing"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that can."""
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to(tracefs.FIRST_NAMESPACE)
    (tmp_path / "proc/self/mountinfo").write_text(f"25 1 0:12 / /{PLACE} rw - tracefs nodev rw\n")
    (tmp_path / "proc/filesystems").write_text("nodev\ttracefs\n")
    (tmp_path / PLACE / "events/sched/sched_switch").mkdir(parents=True)
    (tmp_path / PLACE / "instances").mkdir()
    return tmp_path


def why(root: Path) -> str:
    with pytest.raises(TraceError) as caught:
        tracefs.find(str(root))
    return str(caught.value).replace(str(root), "")


def test_it_is_found_where_it_is_mounted(root: Path) -> None:
    assert tracefs.find(str(root)) == str(root / PLACE)
    (root / "elsewhere of mine").mkdir()
    for name in ("events", "instances"):
        (root / PLACE / name).rename(root / "elsewhere of mine" / name)
    (root / "proc/self/mountinfo").write_text("25 1 0:12 / /elsewhere\\040of\\040mine rw - tracefs nodev rw\n")
    assert tracefs.find(str(root)) == str(root / "elsewhere of mine")


def test_not_mounted_pretended(root: Path) -> None:
    (root / PLACE / "events/sched/sched_switch").rmdir()
    (root / PLACE / "events/sched").rmdir()
    (root / PLACE / "events").rmdir()
    (root / "proc/self/mountinfo").write_text("")
    mount = "mount it: `mount -t tracefs nodev /sys/kernel/tracing`"
    assert why(root) == f"/sys/kernel/tracing: tracefs is not mounted; {mount}"
    (root / "proc/filesystems").write_text("nodev\tproc\n")
    assert "this kernel was built without event tracing" in why(root)


def test_a_kernel_without_the_events_pretended(root: Path) -> None:
    (root / PLACE / "events/sched/sched_switch").rmdir()
    assert "this kernel has no scheduling events (sched_switch); it needs CONFIG_EVENT_TRACING" in why(root)


def test_a_kernel_without_instances_pretended(root: Path) -> None:
    (root / PLACE / "instances").rmdir()
    assert "this kernel cannot trace in an instance of its own; emupin does not disturb the only one" in why(root)


def test_a_container_pretended(root: Path) -> None:
    (root / "proc/self/ns/pid").unlink()
    (root / "proc/self/ns/pid").symlink_to("pid:[4026532513]")
    assert why(root).startswith("emupin trace: this container has process ids of its own")


@pytest.mark.parametrize(
    ("number", "lockdown", "says"),
    [
        (errno.EPERM, "none integrity [confidentiality]", "the kernel is locked down (confidentiality)"),
        (errno.EPERM, "none [integrity] confidentiality", "a container needs CAP_SYS_ADMIN"),
        (errno.EPERM, None, "a container needs CAP_SYS_ADMIN"),
        (errno.EROFS, None, "a container needs CAP_SYS_ADMIN"),
        (errno.ENOMEM, None, "the kernel has no memory for the buffers"),
        (errno.EINVAL, None, "does this kernel have sched_switch events?"),
    ],
)
def test_refusals_pretended(root: Path, number: int, lockdown: str | None, says: str) -> None:
    if lockdown:
        (root / "sys/kernel/security").mkdir()
        (root / "sys/kernel/security/lockdown").write_text(lockdown + "\n")
    if os.geteuid():
        pytest.skip("who is not root is told that only root may trace")
    assert says in str(tracefs.trouble(str(root), "x", OSError(number, os.strerror(number))))


# -- leftovers --------------------------------------------------------------------------------------------------------


def process(root: Path, pid: int, start: int, state: str = "S") -> None:
    (root / f"proc/{pid}").mkdir()
    fields = [state, *["0"] * (instance.START_TIME - 1), str(start), "0"]
    (root / f"proc/{pid}/stat").write_text(f"{pid} (emu) pin) {' '.join(fields)}\n")


def test_only_what_a_dead_run_left_is_removed_pretended(root: Path) -> None:
    process(root, 10, 500)
    process(root, 11, 501)
    process(root, 12, 502, "Z")
    kept = ["emupin-10-500", "emupin-x", "trace-cmd"]
    dead = ["emupin-11-400", "emupin-12-502", "emupin-13-400"]
    for name in kept + dead:
        (root / PLACE / "instances" / name).mkdir()
    instance.sweep(str(root), str(root / PLACE))
    assert sorted(path.name for path in (root / PLACE / "instances").iterdir()) == kept
