"""What a call of the hook costs, as ratios of whole processes.

Run on demand: `python tests/bench/bench_hook.py [ROUNDS]`. The goal is 2 or less: for an operation that is not ours
against a shell that does nothing, for a decision against an interpreter that does nothing. All take turns on one CPU.
`started` moves a thread of a process that pretends to be the guest, and starts the recording process, which is ended
once the hook is done. Processor time counts in the ratios first: it stays the same where others use the machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
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
NAME = "instance-000000a7"
UUID = "c1d7b9a0-2f4e-4a63-8d15-6b7c8d9e0f21"
POLICY = "version: 1\nrules:\n  - name: nfv\n    match: {name: 'instance-*'}\n    placement: ['vcpu:0']\n"
SHELL = ["/bin/sh", "-c", ":"]
PLAIN = [PYTHON, "-I", "-S", "-c", "pass"]
CALLS = {
    "a shell": SHELL,
    "an interpreter": PLAIN,
    **{
        f"{operation} {sub}": [HOOK, NAME, operation, sub, "-"]
        for operation, sub in (("stopped", "end"), ("prepare", "begin"), ("migrate", "begin"), ("started", "begin"))
    },
}
RATIOS = (
    ("stopped end", "a shell"),
    ("prepare begin", "an interpreter"),
    ("migrate begin", "an interpreter"),
    ("started begin", "an interpreter"),
)
WARMING = 3
"""Rounds that compile the policy and fill the caches, and do not count."""

PR_SET_CHILD_SUBREAPER = 36


def compile_library() -> None:
    """As installed: in a checkout the hook leaves no compiled files behind."""
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(ROOT / "src" / "emupin")], check=True)


def make_root(folder: Path, files: dict[str, str]) -> Path:
    """A host with the policy and `files`."""
    for path, text in {"etc/emupin/policy.yaml": POLICY, **files}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)
    return folder


def spend(command: list[str], root: Path, xml: Path) -> tuple[float, float]:
    """Milliseconds of processor time, and until the end."""
    environment = {"EMUPIN_ROOT": str(root), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(xml), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return (used.ru_utime + used.ru_stime) * 1000, (time.perf_counter() - start) * 1000


class Guest:
    """A process with the guest's UUID among its arguments, and what libvirt would have written about it."""

    def __init__(self, folder: Path) -> None:
        self.cpus = os.sched_getaffinity(0)
        command = ["/bin/sh", "-c", "read line", "qemu-system-x86_64", "-uuid", UUID]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        pinned = SAMPLE.read_text().replace("vcpu='0' cpuset='12'", f"vcpu='0' cpuset='{min(self.cpus)}'")
        live = pinned.replace("<domain type='kvm'>", "<domain type='kvm' id='7'>")
        self.root = make_root(folder, {"sys/devices/system/cpu/online": "0-95\n", "guest.xml": live})
        (folder / "proc").symlink_to("/proc")
        status = folder / "run/libvirt/qemu" / f"{NAME}.xml"
        status.parent.mkdir(parents=True)
        status.write_text(f"<domstatus state='running' pid='{self.process.pid}'>\n{live}</domstatus>\n")

    def stray(self) -> None:
        """Let the pretended guest run where it is not to."""
        os.sched_setaffinity(self.process.pid, self.cpus)

    def end_recording(self) -> int:
        """End what the hook has left running; how many that were."""
        others = self.other_children()
        for pid in others:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return len(others)

    def other_children(self) -> list[int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [int(pid) for pid in children if int(pid) != self.process.pid]


def measure(guest: Guest, rounds: int) -> dict[str, tuple[float, float]]:
    """Medians by name."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in CALLS}
    for _ in range(rounds + WARMING):
        for name, command in CALLS.items():
            guest.stray()
            spent[name].append(spend(command, guest.root, guest.root / "guest.xml"))
            if (guest.end_recording() == 1) != (name == "started begin"):
                raise SystemExit(f"{name}: the hook did not do what it is measured for; see its audit trail")
    return {name: medians(values[WARMING:]) for name, values in spent.items()}


def medians(values: list[tuple[float, float]]) -> tuple[float, float]:
    processor, total = zip(*values)
    return statistics.median(processor), statistics.median(total)


def main(rounds: int = 60) -> None:
    compile_library()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # The recording process becomes our child.
    folder = Path(tempfile.mkdtemp(prefix="emupin-bench-", dir="/dev/shm"))
    guest = Guest(folder)
    os.sched_setaffinity(0, {min(guest.cpus)})
    try:
        figures = measure(guest, rounds)
    finally:
        guest.process.kill()
        shutil.rmtree(folder)
    print(f"{'':16}processor      until the end")
    for name, (processor, total) in figures.items():
        print(f"{name:16}{processor:8.2f} ms{total:11.2f} ms")
    for name, base in RATIOS:
        processor, total = (mine / bare for mine, bare in zip(figures[name], figures[base]))
        print(f"{name:16}{processor:8.2f}{total:14.2f}     times {base}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
