"""Writing the audit trail under trouble: many writers, rotation, kills, a full disk, a read-only one."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from hosts import Host, domain_xml
from trails import current, entry, kinds, lines_of, needs, write

from emupin.base.errors import HostError
from emupin.trail import chain, lines, writer
from emupin.trail.chain import verify
from emupin.trail.findings import Verdict
from emupin.trail.writer import read_head

if TYPE_CHECKING:
    from types import FrameType

LOGROTATE = Path(__file__).parents[2] / "packaging" / "emupin.logrotate"


def judged(root: Path) -> Verdict:
    return verify(lines.find(str(root)), read_head(str(root)))


def entries(root: Path) -> list[dict[str, object]]:
    found = map(lines.entry, (line.data for line in lines.read(lines.find(str(root)))))
    return [each for each in found if each is not None]


def keep_writing(root: str, number_of_writer: int, count: int) -> None:
    """Report each entry, once it is written, in a file of this writer's own.

    Between two entries others have their turn, as among hooks, which write once: the lock is not a fair one.
    """
    dice = random.Random(number_of_writer)
    with open(f"{root}/reported-{number_of_writer}", "wb", buffering=0) as report:
        for number in range(count):
            writer.append(root, entry(number, name=f"{number_of_writer}-{number}"))
            report.write(b"%d-%d\n" % (number_of_writer, number))
            time.sleep(dice.random() * 0.05)


def started(root: Path, writers: int, count: int) -> list[multiprocessing.Process]:
    processes = [multiprocessing.Process(target=keep_writing, args=(str(root), each, count)) for each in range(writers)]
    for process in processes:
        process.start()
    return processes


def reported(root: Path) -> set[str]:
    return {name for path in root.glob("reported-*") for name in path.read_text().split()}


def rotate(path: Path, keep: int) -> None:
    """What logrotate does with the configuration that is installed: compress what was rotated last, rename, delete."""
    if (first := path.with_name(f"{path.name}.1")).exists():
        packed = path.with_name(f"{path.name}.1.gz")
        packed.write_bytes(gzip.compress(first.read_bytes(), 1))
        first.unlink()
    for age in range(keep, 0, -1):
        old = path.with_name(f"{path.name}.{age}.gz")
        if old.exists():
            old.rename(path.with_name(f"{path.name}.{age + 1}.gz"))
    if path.exists():
        path.rename(first)


def test_rotation_under_twenty_writers_keeps_the_chain(tmp_path: Path) -> None:
    processes = started(tmp_path, 20, 60)
    rotations = 0
    while any(process.is_alive() for process in processes):
        rotate(current(tmp_path), 200)
        rotations += 1
        time.sleep(0.3)  # Who opened a file before it was renamed must be done before it is compressed.
    assert [process.exitcode for process in processes] == [0] * 20
    assert rotations > 2
    verdict = judged(tmp_path)
    assert verdict.findings == ()
    assert {str(each["name"]) for each in entries(tmp_path)} == reported(tmp_path)
    assert verdict.entries == 20 * 60


def test_the_first_writers_of_all_make_the_folders_at_once(tmp_path: Path) -> None:
    for attempt in range(20):
        root, all_here = tmp_path / str(attempt), Barrier(8)

        def first(number: int, root: Path = root, all_here: Barrier = all_here) -> None:
            all_here.wait()
            writer.append(str(root), entry(number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(first, range(8)))
        assert (judged(root).findings, len(entries(root))) == ((), 8)


def test_writers_that_are_killed_lose_nothing_that_they_reported(tmp_path: Path) -> None:
    dice = random.Random(7)
    processes = started(tmp_path, 50, 100_000)
    time.sleep(0.5)
    for process in dice.sample(processes, len(processes)):
        time.sleep(dice.random() * 0.03)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    write(tmp_path, 1)
    verdict = judged(tmp_path)
    assert verdict.is_sound, verdict.findings
    assert reported(tmp_path) <= {str(each["name"]) for each in entries(tmp_path)}
    assert len(reported(tmp_path)) > 50


def write_and_die(root: str, steps: int) -> None:
    """Write an entry; be killed ahead of the system call that comes after `steps` others."""
    left = steps

    def step(_frame: FrameType, event: str, function: object) -> None:
        nonlocal left
        if event == "c_call" and getattr(function, "__module__", None) in ("posix", "fcntl", "_io"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(step)
    writer.append(root, entry(steps))
    sys.setprofile(None)


def test_a_writer_killed_at_any_system_call_leaves_a_chain(tmp_path: Path) -> None:
    write(tmp_path, 2)
    for steps in range(60):
        process = multiprocessing.Process(target=write_and_die, args=(str(tmp_path), steps))
        process.start()
        process.join()
        assert judged(tmp_path).is_sound
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert 8 < steps < 59
    write(tmp_path, 1, 99)
    assert judged(tmp_path).findings == ()


# -- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str = "64k") -> Iterator[Path]:
    """A real file system of that size in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", folder], check=False)
    needs(done.returncode == 0, "the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", "none", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return path
    raise AssertionError("no end of room")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    needs(os.geteuid() == 0, "root")
    host = Host(tmp_path)
    host.set_policy()
    host.call("migrate", domain_xml())  # Compiles the policy.
    shutil.rmtree(tmp_path / "var")
    return host


def test_with_a_full_disk_the_guest_starts_and_the_gap_is_told(host: Host) -> None:
    with small_disk(host.root / "var/log/emupin") as folder:
        host.call("migrate", domain_xml())
        filler = fill(folder)
        size = current(host.root).stat().st_size
        answers = [host.call("migrate", domain_xml()) for _ in range(6)]
        assert {(answer.status, answer.output) for answer in answers} == {(0, domain_xml(emulatorpin="2"))}
        assert current(host.root).read_bytes().endswith(b"\n")
        lost = 6 - (len(entries(host.root)) - 1)
        assert lost > 0, "the disk is not full"
        assert current(host.root).stat().st_size - size < 8192
        assert [finding.kind for finding in chain.pending(str(host.root))] == ["lost"]
        filler.unlink()
        host.call("migrate", domain_xml())
        assert kinds(judged(host.root)) == ["lost"]
        (gap,) = [each for each in entries(host.root) if each["op"] == "gap"]
        assert str(gap["reason"]).startswith(f"{lost} entr")
        assert chain.pending(str(host.root)) == []


def test_with_a_read_only_disk_the_guest_starts_and_the_gap_is_told(host: Host) -> None:
    with small_disk(host.root / "var") as folder:
        host.call("migrate", domain_xml())
        remount(folder, "ro")
        answer = host.call("migrate", domain_xml())
        assert (answer.status, answer.output, answer.error) == (0, domain_xml(emulatorpin="2"), "")
        assert len(entries(host.root)) == 1
        remount(folder, "rw")
        host.call("migrate", domain_xml())
        assert kinds(judged(host.root)) == ["lost"]


def test_where_the_policy_says_so_an_entry_that_cannot_be_written_refuses_the_start(host: Host) -> None:
    host.set_policy("version: 1\ndefaults: {on_failure: refuse}\nrules:\n  - {name: nfv, placement: 'vcpu:0'}\n")
    with small_disk(host.root / "var/log/emupin") as folder:
        fill(folder)
        answer = host.call("migrate", domain_xml())
        assert (answer.status, answer.output) == (1, "")
        assert "cannot be written: No space left on device; free some space" in answer.error


def test_a_lost_entry_is_told_of_once_also_without_a_head(tmp_path: Path) -> None:
    (tmp_path / "var/lib/emupin/audit-head").mkdir(parents=True)
    lost = tmp_path / "run/emupin/audit-lost"
    lost.mkdir(parents=True)
    (lost / "2026-11-22T10:00:00Z_1").touch()
    path = write(tmp_path, 3)
    assert ([b'"op": "gap"' in line for line in lines_of(path)], os.listdir(lost)) == ([True, False, False, False], [])


def test_a_folder_that_cannot_be_made_counts_as_lost(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("in the way")
    for number in (1, 2):
        with pytest.raises(HostError, match="cannot be written: Not a directory"):
            writer.append(str(tmp_path), entry(number))
    assert len(chain.pending(str(tmp_path))) == 1
    (tmp_path / "var").unlink()
    write(tmp_path, 1, 3)
    (gap,) = [each for each in entries(tmp_path) if each["op"] == "gap"]
    assert gap["reason"] == f"2 entries could not be written, the first at {entry(1)['time']}"
    assert list((tmp_path / "run/emupin/audit-lost").iterdir()) == []


# -- the real logrotate -----------------------------------------------------------------------------------------------


def test_logrotate_with_the_installed_file_keeps_the_chain(tmp_path: Path) -> None:
    program = shutil.which("logrotate", path="/usr/sbin:/sbin:/usr/bin")
    needs(program is not None and os.geteuid() == 0, "logrotate, and root")
    settings = tmp_path / "logrotate.conf"
    text = LOGROTATE.read_text().replace("/var/log/emupin", str(tmp_path / "var/log/emupin"))
    settings.write_text(text)
    settings.chmod(0o644)
    processes = started(tmp_path, 8, 100)
    rotations = 0
    while any(process.is_alive() for process in processes) or rotations < 4:
        command = [program or "", "--force", "--state", str(tmp_path / "state"), str(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        rotations += 1
        time.sleep(0.3)
    write(tmp_path, 1, 500)
    verdict = judged(tmp_path)
    assert (verdict.findings, verdict.entries) == ((), 801)
    names = [Path(path).name for path in lines.find(str(tmp_path))]
    assert names[-3:] == ["audit.jsonl.2.gz", "audit.jsonl.1", "audit.jsonl"]
    assert json.loads(current(tmp_path).read_text().splitlines()[-1])["name"] == "nfv-500"
    assert current(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", [b"", b"x", b"x" * 4094, b"x" * 4095, b"x" * 4096, b"x" * 200_000])
@pytest.mark.parametrize("before", [b"", b"\n", b"another\n", b"another\n\n"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_last_line_is_found_whatever_its_length(tmp_path: Path, before: bytes, line: bytes, end: bytes) -> None:
    path = tmp_path / "trail"
    path.write_bytes(before + line + end)
    with path.open("rb") as file:
        expected = file.readlines()[-1:] or [b""]
        assert [writer.last_line(file.fileno(), path.stat().st_size)] == expected


def test_the_start_of_a_last_line_of_a_gigabyte_is_not_looked_for_a_thousand_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full, or a file system after a crash, leaves zeros. Of a sixteenth of it here."""
    path, size, pread, reads = tmp_path / "trail", 1 << 26, os.pread, 0

    def counted(*arguments: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", counted)
    with path.open("wb+") as file:
        file.truncate(size)
        assert writer.last_line(file.fileno(), size) == bytes(size)
    assert reads < 10
