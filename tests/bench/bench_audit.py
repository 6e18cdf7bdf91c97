"""What writing the audit entry adds to a call of the hook, as a ratio of whole processes.

Run on demand: `python tests/bench/bench_audit.py [ROUNDS]`. The goal is 1.15 or less. The hook is measured against a
copy of itself in which `trail.append` does nothing; both take turns on one CPU. Processor time counts first: the
elapsed time has the disk in it, which a change waits for (`fdatasync`).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
SAMPLE = ROOT / "fixtures" / "xml" / "nova-1.1-pinned.xml"
NAME = "instance-000000a7"
POLICY = "version: 1\nrules:\n  - name: nfv\n    match: {name: 'instance-*'}\n    placement: ['vcpu:0']\n"
OPERATIONS = ("prepare", "migrate", "restore")
SILENT = "\n\ndef append(root, entry, durable=False):\n    return None\n"
WARMING = 3
"""Rounds that compile the policy and fill the caches, and do not count."""


def make_root(folder: Path) -> Path:
    """A host with CPUs enough and the policy."""
    for path, text in {"etc/emupin/policy.yaml": POLICY, "sys/devices/system/cpu/online": "0-95\n"}.items():
        file = folder / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o644)
    return folder


def milliseconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Processor time, and elapsed time."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(SAMPLE), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    _, _, usage = os.wait4(os.posix_spawn(command[0], command, environment, file_actions=actions), 0)
    return (usage.ru_utime + usage.ru_stime) * 1000, (time.perf_counter() - start) * 1000


def make_copy(folder: Path, name: str, addition: str = "") -> tuple[Path, dict[str, str]]:
    """The hook with a library of its own, compiled as an installed one is; and the environment of its host."""
    home = folder / name
    shutil.copytree(ROOT / "src" / "emupin", home / "src" / "emupin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "hooks", home / "hooks")
    with (home / "src" / "emupin" / "trail.py").open("a") as file:
        file.write(addition)
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(home / "src")], check=True)
    root = make_root(home / "host")
    return home / "hooks" / "qemu", {"EMUPIN_ROOT": str(root), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def measure(copies: list[tuple[Path, dict[str, str]]], operation: str, rounds: int) -> list[tuple[float, float]]:
    """Medians for each copy."""
    times: list[list[tuple[float, float]]] = [[] for _ in copies]
    for _ in range(rounds + WARMING):
        for taken, (hook, environment) in zip(times, copies):
            taken.append(milliseconds([str(hook), NAME, operation, "begin", "-"], environment))
    medians = [[statistics.median(kind) for kind in zip(*taken[WARMING:])] for taken in times]
    return [(processor, elapsed) for processor, elapsed in medians]


def main(rounds: int = 100) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as name:
        copies = [make_copy(Path(name), "writes"), make_copy(Path(name), "silent", SILENT)]
        for operation in OPERATIONS:
            writes, silent = measure(copies, operation, rounds)
            for kind, with_entry, without in zip(("processor", "elapsed"), writes, silent):
                ratio = with_entry / without
                print(f"{operation:9}{kind:10}{with_entry:7.2f} ms, without the entry {without:7.2f} ms: {ratio:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
