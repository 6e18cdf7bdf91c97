"""Every system call of a hook call, made to fail in turn: what libvirt gets, and when.

On demand: `python tests/faults/campaign.py [RUNS [SEED]]` takes that many of all (policy, operation, program, function,
how manieth call, error), 3,000 unless told otherwise, from each function in turn; there are some 70,000. Another SEED
takes others. `test_faults.py` takes the first ones of seed 0. The guest is a process that only pretends to be QEMU; its
threads are moved in earnest.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

from hosts import HOOK, POLICY, UUID, Host, domain_xml  # noqa: E402  # as a script, too

ERRORS = tuple(getattr(errno, name) for name in ["EACCES", "EIO", "EMFILE", "ENOMEM", "ENOSPC", "EINTR"])
PROTECTED = ("reconnect", "attach", "stopped", "release")
OPERATIONS = ("prepare", "started", "migrate", "restore", *PROTECTED)
POLICIES = {"start": POLICY, "refuse": POLICY.replace("rules:", "defaults: {on_failure: refuse}\nrules:")}

SECONDS = 11.0
"""Until nobody may have libvirt's pipes any more."""
EVERY_CALL = 0

STARTED = "sh stat64"
"""The first call that the hook makes. What fails before, the shell needs to find the hook at all."""

IMPOSSIBLE = ("sh sigaction", "sh wait3", "sh dup2")
"""No kernel refuses a shell a handler, its own child's status, or a number that is open already; dash does not ask."""

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Fault:
    """One call of the hook with one error in it."""

    on_failure: str
    operation: str
    program: str
    function: str
    at: int
    """The how manieth call of that function in that program; EVERY_CALL."""
    error: int

    @property
    def is_mute(self) -> bool:
        """Whether the program can say nothing at all."""
        return self.function == "write" and self.at == EVERY_CALL

    def environment(self) -> dict[str, str]:
        return {
            "FAULT_PROGRAM": self.program,
            "FAULT_CALL": self.function,
            "FAULT_AT": str(self.at),
            "FAULT_ERRNO": str(self.error),
        }

    def __str__(self) -> str:
        at = f"call {self.at}" if self.at else "every call"
        name = errno.errorcode[self.error]
        return f"{self.operation} under {self.on_failure}: {at} of {self.function} in {self.program}: {name}"


def build_shim(folder: Path) -> Path | None:
    """None where there is no C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    source, shim = Path(__file__).with_name("shim.c"), folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", shim, source], check=True)
    return shim


class Campaign:
    """A host below `folder`, and the hook called in it with one fault at a time."""

    def __init__(self, folder: Path, shim: Path) -> None:
        self.shim = shim
        self.host = Host(folder)
        self.guest = subprocess.Popen(["/bin/sh", "-c", "read line", "qemu", "-uuid", UUID], stdin=subprocess.PIPE)
        self.cpus = os.sched_getaffinity(0)
        self.xml = domain_xml().replace("vcpu='0' cpuset='2'", f"vcpu='0' cpuset='{min(self.cpus)}'")
        (folder / "proc").symlink_to("/proc")
        status = f"<domstatus state='running' pid='{self.guest.pid}'>\n{self.xml}</domstatus>\n"
        self.host.write("run/libvirt/qemu/nfv-1.xml", status)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # The recording process becomes our child.

    def close(self) -> None:
        self.guest.kill()
        self.guest.communicate()

    def faults(self) -> list[Fault]:
        """All of them."""
        return [fault for policy in POLICIES for operation in OPERATIONS for fault in self._faults(policy, operation)]

    def _faults(self, on_failure: str, operation: str) -> Iterator[Fault]:
        trace = self.host.root / "trace"
        self.host.set_policy(POLICIES[on_failure])
        self.call("prepare", {})
        self.call(operation, {})
        trace.write_text("")
        self.call(operation, {"FAULT_TRACE": str(trace)})
        lines = trace.read_text().splitlines()
        before = Counter(lines[: lines.index(STARTED)] if STARTED in lines else lines)
        for line, count in sorted(Counter(lines).items()):
            program, function = line.split()
            if line in IMPOSSIBLE:
                continue
            calls = range(before[line] + 1, count + 1)
            for at in calls if before[line] else (EVERY_CALL, *calls):
                for error in ERRORS:
                    if (at, error) == (EVERY_CALL, errno.EINTR) and (program != "python3" or operation != "reconnect"):
                        continue  # Others try for ever, as no kernel lets them; Python until its alarm, nine seconds.
                    yield Fault(on_failure, operation, program, function, at, error)

    def call(self, operation: str, environment: dict[str, str]) -> tuple[int, str, str, float]:
        """Status, output, errors, and the seconds until nobody had the pipes any more."""
        os.sched_setaffinity(self.guest.pid, self.cpus)
        began = time.monotonic()
        process = subprocess.Popen(
            [HOOK, "nfv-1", operation, "begin", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin", "EMUPIN_ROOT": str(self.host.root),
                 "LD_PRELOAD": str(self.shim), **environment},
        )  # fmt: skip
        try:
            output, errors = process.communicate(self.xml, timeout=SECONDS + 9)
        except subprocess.TimeoutExpired:
            output = errors = "still running"
        finally:
            process.kill()
            self.end_others()
        return process.returncode, output, errors, time.monotonic() - began

    def end_others(self) -> None:
        """The recording process would ask this machine's libvirt."""
        while others := self.other_children():
            for pid in others:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def other_children(self) -> list[int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [int(pid) for pid in children if int(pid) != self.guest.pid]

    def complaint(self, fault: Fault) -> str:
        """What is wrong with the answer that libvirt gets; empty if nothing is."""
        self.host.set_policy(POLICIES[fault.on_failure])
        status, output, errors, seconds = self.call(fault.operation, fault.environment())
        allowed = {0, 1} if fault.on_failure == "refuse" and fault.operation not in PROTECTED else {0}
        if seconds > SECONDS:
            return f"{fault}: {seconds:.1f} seconds"
        if status not in allowed:
            return f"{fault}: status {status}: {errors}"
        if status and fault.program == "python3" and not fault.is_mute and "emupin: " not in errors:
            return f"{fault}: refused without a reason: {errors!r}"
        if output and not output.endswith("</domain>\n"):
            return f"{fault}: half a document"
        return ""


def mixed(faults: list[Fault], seed: int = 0) -> list[Fault]:
    """Each function of each program for each operation in turn, in an order that the `seed` gives."""
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in random.Random(seed).sample(faults, len(faults)):
        key = fault.on_failure, fault.operation, fault.program, fault.function
        groups.setdefault(key, []).append(fault)
    return [fault for layer in zip_longest(*groups.values()) for fault in layer if fault]


def main(runs: int = 3000, seed: int = 0) -> None:
    with tempfile.TemporaryDirectory(prefix="emupin-faults-") as name:
        folder = Path(name)
        shim = build_shim(folder)
        if not shim:
            raise SystemExit("this needs a C compiler, cc")
        (folder / "host").mkdir()
        campaign = Campaign(folder / "host", shim)
        try:
            run(campaign, runs, seed)
        finally:
            campaign.close()


def run(campaign: Campaign, runs: int, seed: int) -> None:
    """Raises SystemExit where something is wrong."""
    everything = campaign.faults()
    chosen = mixed(everything, seed)[:runs]
    complaints, slowest = [], 0.0
    for number, fault in enumerate(chosen, 1):
        began = time.monotonic()
        if complaint := campaign.complaint(fault):
            complaints.append(complaint)
            print(complaint, flush=True)
        slowest = max(slowest, time.monotonic() - began)
        if number % 500 == 0:
            print(f"{number} of {len(chosen)}", file=sys.stderr)
    print(f"{len(chosen)} of {len(everything)} faults, {len(complaints)} complaints, the slowest call {slowest:.1f} s")
    if complaints:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
