"""`emupin status` on recorded hosts: what it shows in which form, and what it says of what it cannot see.

The kernel's files are pretended; real threads are in `tests/real`.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from command import emupin, environment
from guests import Machine, Task, many
from hosts import Host

from emupin.live import survey
from emupin.live.causes import NOT_PLACED
from emupin.live.prometheus import render
from emupin.live.rates import between
from emupin.live.survey import take
from emupin.node.claims import Ledger
from emupin.screen import statustext, watch

UUID = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One guest, in line."""
    host = Host(tmp_path)
    host.set_policy()
    return Machine(host)


def json_of(root: Path, *words: str) -> Any:
    return json.loads(emupin(root, "status", "--json", *words).stdout)


@pytest.mark.usefixtures("machine")
def test_a_guest_in_line(tmp_path: Path) -> None:
    done = emupin(tmp_path, "status")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        f"nfv-1  {UUID}  pid 4242  running",
        "  plan   rule nfv, vcpu:0: emulator threads on 2",
        "  found  live XML 2 · persistent XML 2 · cgroup 2",
        "  KIND         TID  NAME             ALLOWED  LAST  VOL  INVOL  MIGR    RUN   WAIT",
        "  emulator    4242  qemu-system-x86  2           2  100     10    17  1.50s  0.25s",
        "  emulator    4243  qemu-system-x86  2           2  100     10    17  1.50s  0.25s",
        "  emulator    4244  vnc_worker       2           2  100     10    17  1.50s  0.25s",
        "  iothread 1  4245  IO iothread1     7           2  100     10    17  1.50s  0.25s",
        "  vCPU 0      4246  CPU 0/KVM        2           2  100     10    17  1.50s  0.25s",
        "  vCPU 1      4247  CPU 1/KVM        3           3  100     10    17  1.50s  0.25s",
        "  vCPU 2      4248  CPU 2/KVM        4           4  100     10    17  1.50s  0.25s",
        "  vCPU 3      4249  CPU 3/KVM        5           5  100     10    17  1.50s  0.25s",
        "",
        "1 guest: 1 in sync",
    ]


def test_drift_is_marked_and_told_once_for_each_cause(machine: Machine, tmp_path: Path) -> None:
    machine.tasks[2].allowed = "2,9"
    machine.group = "2,9"
    machine.write()
    done = emupin(tmp_path, "status")
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert [line.split()[2] for line in lines if line.startswith("!") and "worker" in line] == ["4244"]
    cause = "the cpuset cgroup was written by hand: libvirt's XML is right"
    assert f"! on 2,9, planned 2: thread 4244; cpuset.cpus of emulator: {cause}" in lines
    assert lines[-1] == "1 guest: 0 in sync, 1 drifted"


def test_json_has_everything(machine: Machine, tmp_path: Path) -> None:
    machine.tasks[1] = Task("CPU \x1b[31m", "emulator", "2")
    machine.write()
    found = json_of(tmp_path)
    (guest,) = found["guests"]
    assert guest["threads"][1] == {
        "tid": 4243, "name": "CPU \x1b[31m", "kind": "emulator", "number": None, "allowed": "2", "expected": "2",
        "drift": False, "last_cpu": 2, "voluntary_switches": 100, "involuntary_switches": 10, "migrations": 17,
        "run_seconds": 1.5, "wait_seconds": 0.25,
    }  # fmt: skip
    assert found["summary"] == {"guests": 1, "in_line": 1, "drift": 0, "unmanaged": 0, "errors": 0}
    assert guest["plan"]["rule"] == "nfv"


@pytest.mark.parametrize("word", ["nfv-1", UUID, UUID.replace("-", "").upper()])
def test_a_guest_by_name_or_uuid(machine: Machine, tmp_path: Path, word: str) -> None:
    Machine(machine.host, "other", "0c1d0000-0000-4000-8000-000000000001", 5000)
    assert [each["name"] for each in json_of(tmp_path, word)["guests"]] == ["nfv-1"]
    assert [each["name"] for each in json_of(tmp_path)["guests"]] == ["nfv-1", "other"]


@pytest.mark.parametrize(
    ("word", "said"),
    [("nfv-2", "did you mean 'nfv-1'?"), ("../nfv-1", "no guest"), ("off", "is not running")],
)
def test_a_guest_that_does_not_run(machine: Machine, tmp_path: Path, word: str, said: str) -> None:
    machine.host.write("etc/libvirt/qemu/off.xml", "<domain/>")
    done = emupin(tmp_path, "status", word)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_no_guest_and_no_policy(tmp_path: Path) -> None:
    host = Host(tmp_path)
    done = emupin(tmp_path, "status")
    assert (done.returncode, done.stdout) == (0, b"no guest is running\n")
    Machine(host, group="2-9", pin=None)
    done = emupin(tmp_path, "status")
    assert done.returncode == 0
    assert b"no policy is in force" in done.stderr
    assert b"1 guest: 0 in sync, 1 not managed by the policy" in done.stdout


def test_what_was_taken_back_is_no_handiwork(machine: Machine, tmp_path: Path) -> None:
    """The ledger keeps a claim of no CPUs as long as the guest runs."""
    with Ledger(str(tmp_path), None) as ledger:
        ledger.claim(UUID, frozenset({2}), dedicated=False)
        ledger.release(UUID)
        ledger.save()
    machine.pin = machine.stored = machine.group = "2-5"
    for at in (0, 1, 2):
        machine.tasks[at].allowed = "2-5"
    machine.write()
    (guest,) = json_of(tmp_path)["guests"]
    assert {each["cause"] for each in guest["drifts"]} == {NOT_PLACED}


def test_a_policy_of_ones_own(machine: Machine, tmp_path: Path) -> None:
    other = machine.host.write("other.yaml", "version: 1\nrules:\n  - {name: all, placement: ['cpus:9']}\n")
    done = emupin(tmp_path, "status", "--policy", other)
    assert done.returncode == 1
    assert b"rule all, cpus:9" in done.stdout


def test_trouble_with_one_guest_leaves_the_others(machine: Machine, tmp_path: Path) -> None:
    Machine(machine.host, "nfv-2", "0c1d0000-0000-4000-8000-000000000001", 5000)
    machine.host.write("proc/5000/cmdline", "somebody\0else\0")
    machine.host.write("etc/emupin/policy.yaml", (tmp_path / "etc/emupin/policy.yaml").read_text())
    done = emupin(tmp_path, "status")
    assert done.returncode == 2
    assert b"libvirt's status file is stale" in done.stderr
    assert b"1 guest: " in done.stdout
    assert b", 1 error" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [("unlink", "persistent XML none (transient guest)"), ("broken", "persistent XML unknown"), ("hide", "unknown")],
)
@pytest.mark.usefixtures("machine")
def test_persistent_definition_that_cannot_be_seen(tmp_path: Path, change: str, said: str) -> None:
    path = tmp_path / "etc/libvirt/qemu/nfv-1.xml"
    if change == "broken":
        path.write_text("<domain")
    else:
        path.unlink()
    if change == "hide":
        path.parent.rmdir()
    done = emupin(tmp_path, "status")
    assert done.returncode == 0
    assert said in done.stdout.decode()


@pytest.mark.usefixtures("machine")
def test_a_kernel_that_counts_less(tmp_path: Path) -> None:
    """Without CONFIG_SCHEDSTATS and CONFIG_SCHED_DEBUG."""
    for tid in range(4242, 4250):
        for name in ("sched", "schedstat"):
            (tmp_path / f"proc/4242/task/{tid}/{name}").unlink()
    thread = json_of(tmp_path)["guests"][0]["threads"][0]
    assert (thread["migrations"], thread["run_seconds"], thread["voluntary_switches"]) == (None, None, 100)
    assert emupin(tmp_path, "status").returncode == 0


@pytest.mark.usefixtures("machine")
def test_a_thread_that_ends_meanwhile_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "proc/4242/task/4244/stat").unlink()
    assert [each["tid"] for each in json_of(tmp_path)["guests"][0]["threads"]][:3] == [4242, 4243, 4245]


# -- widths, rates, screens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 200])
def test_lines_fit(machine: Machine, tmp_path: Path, width: int) -> None:
    task = machine.tasks[2]
    task.name, task.allowed = "a-name-15-chars", "0,2,4,6,8,10,12,14,16,18,20,22,24-31,64-127"
    task.voluntary, task.involuntary, task.migrations, task.run = 10**12, 123456, 9999999, 10**18
    machine.write()
    done = subprocess.run(
        [sys.executable, "-m", "emupin", "status"],
        env={**environment(tmp_path), "COLUMNS": str(width)}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert max(map(len, done.stdout.decode().splitlines())) <= width
    assert ("…" in done.stdout.decode()) == (width == 80)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (99999, "99999"), (100_000, "100k"), (1_234_567, "1.2M"), (999_999_999, "1000M"), (10**12, "1.0T")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert statustext.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.004, "0.00s"), (99.994, "99.99s"), (100, "1m40s"), (7260, "2h01m"), (90000, "1d01h")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert statustext.duration(int(seconds * 1e9)) == text


def test_rates_and_preempted_vcpus(machine: Machine, tmp_path: Path) -> None:
    before = take(str(tmp_path), [], None)
    for offset, more in ((0, 5), (5, 200)):
        task = machine.tasks[offset]
        task.run, task.involuntary, task.voluntary = task.run + 10**6, task.involuntary + more, task.voluntary + 1
    machine.write()
    after = take(str(tmp_path), [], None)
    seconds = after.guests[0].at - before.guests[0].at
    rates = between(before, after)
    main = rates[4242][4242]
    assert main.run == pytest.approx(0.001 / seconds)
    assert main.involuntary == pytest.approx(5 / seconds)
    text = statustext.render(after, rates, 0, False)
    (marked,) = [line for line in text.splitlines() if line.startswith("> vCPU")]
    assert marked.startswith("> vCPU 1 (4247) is preempted: ")
    assert marked.endswith("last on CPU 3")
    assert "INVOL/s" in text


@pytest.mark.usefixtures("machine")
def test_watch_into_a_pipe_gives_a_block_for_each_interval(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "emupin", "status", "--watch", "0.2"],
        env=environment(tmp_path), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(34)]
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    text = "".join(lines) + rest
    assert text.count("every 0.2 s") >= 2
    assert "\x1b" not in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
@pytest.mark.usefixtures("machine")
def test_watch_gives_the_terminal_back(tmp_path: Path, number: int, code: int) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**environment(tmp_path), "TERM": "xterm"}
        env.pop("COLUMNS", None)
        os.execve(sys.executable, [sys.executable, "-m", "emupin", "status", "--watch", "0.2"], env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 66, 0, 0))
    shown = read_until(terminal, b"more lines")
    os.kill(pid, number)
    shown += read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert shown.startswith(watch.ENTER.encode())
    assert shown.endswith(watch.LEAVE.encode())
    screen = shown.split(watch.HOME.encode())[-1].decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert all(len(line.rstrip("\r")) <= 66 for line in plain.split("\n")), plain


def read_until(terminal: int, word: bytes | None) -> bytes:
    data, end = b"", time.monotonic() + 20
    while time.monotonic() < end and (word is None or word not in data):
        if select.select([terminal], [], [], 1)[0]:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            data += piece
    return data


# -- Prometheus -------------------------------------------------------------------------------------------------------

LINE = re.compile(r'[a-z_]+(\{([a-z_]+="(\\[\\n"]|[^"\\\n])*",?)*\})? -?[0-9.e+]+')


def test_metrics_have_the_format(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.set_policy()
    Machine(host, 'nfv-"\\', group="2-3")
    lines = render(survey.take(str(tmp_path), [], None)).decode().splitlines()
    assert all(LINE.fullmatch(line) for line in lines if not line.startswith("# ")), lines
    assert any('guest="nfv-\\"\\\\"' in line for line in lines)
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    families = [re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")]
    assert list(dict.fromkeys(families)) == [each for each in names if each in families], (
        "the samples of a metric stand together, below its head"
    )
    assert any(line.startswith("emupin_main_loop_run_seconds_total{") and line.endswith(" 1.5") for line in lines)


def series(root: Path) -> dict[str, str]:
    lines = render(survey.take(str(root), [], None)).decode().splitlines()
    found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {labels: value for labels, _, value in found}


def test_series_do_not_change_with_a_start(machine: Machine, tmp_path: Path) -> None:
    """The same guest in another process, with more workers: a time series for each thread would be kept for ever."""
    before = series(tmp_path)
    shutil.rmtree(tmp_path / "proc/4242")
    tasks = {20 + offset: task for offset, task in machine.tasks.items() if offset}
    workers = {30 + each: Task(f"worker-{each}", "emulator", "2-9") for each in range(3)}
    Machine(machine.host, pid=777_000, tasks={0: machine.tasks[0], **tasks, **workers})
    after = series(tmp_path)
    assert before.keys() == after.keys()
    assert {label for line in after for label in re.findall(r'(\w+)="', line)} == {
        "guest", "uuid", "rule", "placement", "where", "kind", "vcpu", "iothread",
    }  # fmt: skip
    guest = f'guest="nfv-1",uuid="{UUID}",'
    emulator = f'{{{guest}kind="emulator",}}'
    assert [each["emupin_threads" + emulator] for each in (before, after)] == ["3", "6"]
    assert [each["emupin_threads_drifted" + emulator] for each in (before, after)] == ["0", "3"]
    for name in before:
        assert "_total{" not in name or before[name] == after[name], "workers that come and go count in none"


def test_vhost_workers_are_counted_together(machine: Machine, tmp_path: Path) -> None:
    machine.tasks |= {20 + each: Task(f"vhost-{machine.pid}", "emulator", "2") for each in range(2)}
    machine.write()
    found = series(tmp_path)
    guest = f'guest="nfv-1",uuid="{UUID}",'
    assert found[f'emupin_threads{{{guest}kind="vhost",}}'] == "2"
    assert found[f"emupin_vhost_run_seconds_total{{{guest}}}"] == "3.0"


@pytest.mark.usefixtures("machine")
def test_metrics_replace_a_file_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "collector"
    folder.mkdir()
    target = folder / "emupin.prom"
    target.write_text("old")
    old = target.stat().st_ino
    assert emupin(tmp_path, "status", "--prometheus", "-o", target).returncode == 0
    assert b"emupin_guests 1\n" in target.read_bytes()
    assert (target.stat().st_mode & 0o7777, target.stat().st_ino != old) == (0o644, True)
    assert [path.name for path in folder.iterdir()] == ["emupin.prom"]
    wrong = emupin(tmp_path, "status", "--prometheus", "-o", folder / "no" / "file")
    assert (wrong.returncode, b"cannot be written" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    "words", [("-o", "x"), ("--watch", "--prometheus"), ("--watch", "0"), ("--json", "--prometheus")]
)
def test_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert emupin(tmp_path, "status", *words).returncode == 2


def test_many(tmp_path: Path) -> None:
    many(tmp_path, 20)
    found = json_of(tmp_path)
    assert found["summary"] == {"guests": 20, "in_line": 20, "drift": 0, "unmanaged": 0, "errors": 0}
