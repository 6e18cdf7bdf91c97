"""What a call of the hook costs, as ratios of whole processes.

Run on demand: `python tests/bench/bench_hook.py [ROUNDS]`. The goal is 2 or less: for an operation that is not ours
against a shell that does nothing, for a decision against an interpreter that does nothing. All take turns on one CPU.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
HOOK = str(ROOT / "hooks" / "qemu")
SAMPLE = ROOT / "fixtures" / "xml" / "nova-1.1-pinned.xml"
POLICY = "version: 1\nrules:\n  - name: nfv\n    match: {name: 'instance-*'}\n    placement: ['vcpu:0']\n"
SHELL = ["/bin/sh", "-c", ":"]
PLAIN = [PYTHON, "-I", "-S", "-c", "pass"]
CALLS = {
    "a shell": SHELL,
    "an interpreter": PLAIN,
    "stopped end": [HOOK, "instance-000000a7", "stopped", "end", "-"],
    "prepare begin": [HOOK, "instance-000000a7", "prepare", "begin", "-"],
    "migrate begin": [HOOK, "instance-000000a7", "migrate", "begin", "-"],
    "started begin": [HOOK, "instance-000000a7", "started", "begin", "-"],
}
RATIOS = (
    ("stopped end", "a shell"),
    ("prepare begin", "an interpreter"),
    ("migrate begin", "an interpreter"),
    ("started begin", "an interpreter"),
)


def make_root(folder: Path) -> Path:
    """A host with CPUs enough and the policy, no guest running: `started` decides and finds no thread."""
    for path, text in {"etc/emupin/policy.yaml": POLICY, "sys/devices/system/cpu/online": "0-95\n"}.items():
        file = folder / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o644)
    return folder


def milliseconds(command: list[str], environment: dict[str, str]) -> float:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(SAMPLE), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    os.wait4(pid, 0)
    return (time.perf_counter() - start) * 1000


def measure(root: Path, rounds: int) -> dict[str, float]:
    """Medians by name; the first rounds, which compile the policy, do not count."""
    environment = {"EMUPIN_ROOT": str(root), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(rounds + 3):
        for name, command in CALLS.items():
            times[name].append(milliseconds(command, environment))
    return {name: statistics.median(values[3:]) for name, values in times.items()}


def main(rounds: int = 60) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # As installed, where the library is compiled: in a checkout the hook leaves no compiled files behind.
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(ROOT / "src" / "emupin")], check=True)
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as name:
        medians = measure(make_root(Path(name)), rounds)
    for name, value in medians.items():
        print(f"{name:16}{value:8.2f} ms")
    for name, base in RATIOS:
        print(f"{name:16}{medians[name] / medians[base]:8.2f} times {base}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
