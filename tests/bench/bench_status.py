"""What `emupin status` of 100 guests costs, as a ratio to a bare Python loop that reads the same files of `/proc`.

Run on demand: `python tests/bench/bench_status.py [ROUNDS]`. The goal is 2 or less for whole processes; the work alone,
without what an interpreter and its modules take to load, is shown beside it. All take turns on one CPU. The guests are
pretended; what is counted of their threads comes from the real `/proc`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from guests import many  # noqa: E402

PYTHON = "/usr/bin/python3"
EMUPIN = [PYTHON, "-c", "import sys; from emupin.cli import main; sys.exit(main())"]
GUESTS = 100
REAL = ("stat", "schedstat", "sched")
"""Files whose content decides nothing: the kernel's own, of this process."""
LOOP = """\
import os, sys
proc = sys.argv[1] + "/proc"
for pid in os.listdir(proc):
    if pid.isdigit():
        for name in ("cmdline", "cgroup"):
            with open(f"{proc}/{pid}/{name}") as file:
                file.read()
        for tid in os.listdir(f"{proc}/{pid}/task"):
            for name in ("status", "cgroup", "stat", "schedstat", "sched"):
                with open(f"{proc}/{pid}/task/{tid}/{name}") as file:
                    file.read()
"""

CLAIM = """\
from emupin.node.claims import Ledger
from emupin.base.files import root_from_environment
from emupin.node.store import find
root = root_from_environment()
with Ledger(root, find(root).policy) as ledger:
    ledger.save()
"""
"""What the hook has done on a host where it runs: its ledger knows the guests."""


WORK = """\
import sys, time
from emupin.screen import statustext
from emupin.live import survey
start = time.process_time()
statustext.render(survey.take(sys.argv[1], [], None), None, 0, False)
print((time.process_time() - start) * 1000)
"""
LOOP_WORK = f"import time; start = time.process_time()\n{LOOP}print((time.process_time() - start) * 1000)\n"


def work(code: str, root: str, environment: dict[str, str]) -> float:
    """Milliseconds of CPU time without the interpreter's start and the modules' loading."""
    done = subprocess.run([PYTHON, "-c", code, root], env=environment, capture_output=True, check=True)
    return float(done.stdout)


def milliseconds(command: list[str], environment: dict[str, str]) -> float:
    """Of CPU time: the machine may have other things to do."""
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    assert status == 0, command
    return (used.ru_utime + used.ru_stime) * 1000


def make_host(root: Path) -> None:
    many(root, GUESTS)
    for folder in root.glob("sys/fs/cgroup/cpuset/machine/*/emulator"):
        (folder / "cgroup.procs").write_text(folder.parent.name.split("-")[1] + "\n")
    for task in root.glob("proc/*/task/*"):
        for name in REAL:
            (task / name).unlink()
            (task / name).symlink_to(f"/proc/{os.getpid()}/{name}")


def main(rounds: int = 10) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as name, tempfile.TemporaryDirectory() as cache:
        make_host(Path(name))
        # As installed, where the library is compiled.
        environment = {"EMUPIN_ROOT": name, "PYTHONPATH": str(ROOT / "src"), "PYTHONPYCACHEPREFIX": cache}
        subprocess.run([PYTHON, "-c", CLAIM], env=environment, check=True)
        commands = {
            "a bare loop": [PYTHON, "-c", LOOP, name],
            "status": [*EMUPIN, "status"],
            "status --json": [*EMUPIN, "status", "--json"],
            "status --prometheus": [*EMUPIN, "status", "--prometheus"],
        }
        times: dict[str, list[float]] = {key: [] for key in commands}
        works: dict[str, list[float]] = {"a bare loop": [], "status": []}
        for _ in range(rounds + 1):
            works["a bare loop"].append(work(LOOP_WORK, name, environment))
            works["status"].append(work(WORK, name, environment))
            for key, command in commands.items():
                times[key].append(milliseconds(command, environment))
    bare, ours = (statistics.median(works[key][1:]) for key in ("a bare loop", "status"))
    print(f"the work alone: a bare loop {bare:.1f} ms, status {ours:.1f} ms, {ours / bare:.2f} times\nwhole processes:")
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    for key, value in medians.items():
        print(f"{key:20}{value:8.1f} ms{value / medians['a bare loop']:8.2f} times a bare loop")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
