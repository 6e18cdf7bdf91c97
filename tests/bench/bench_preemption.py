"""What emulator threads take from vCPUs that poll: the orchestrator's union of CPUs, vcpu:0 and dedicated, in turns.

Run on demand, as root: `python tests/bench/bench_preemption.py [SECONDS [ROUNDS [kvm]]]`, or with `cost` for what a
trace costs. A real libvirtd and QEMU, in namespaces of their own; the guest is a boot sector whose vCPUs from 1 up
read the time-stamp counter for ever and keep the longest gap (tests/real/poll.S); meanwhile its screen is looked at
through VNC, its disk is copied, and its monitor is asked. Thefts are what `emupin trace` counts; gaps are what the
guest saw. Both cover the same seconds. Everything else here is kept on the CPU of vCPU 0.

With two CPUs there is none left to dedicate: vCPU 0, which sleeps nearly all the time, then lies on the CPU of vCPU 1
for that placement. Other work of the machine takes CPUs, too: it is shown in columns of its own, and kept small by a
weight that puts the whole host before it. Between vCPUs and emulator threads it changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from real import polling  # noqa: E402
from real.cgroups import native_version  # noqa: E402
from real.expect import start  # noqa: E402
from real.guests import CPUS  # noqa: E402
from real.host import PrivateHost, eventually  # noqa: E402
from real.polling import Poller  # noqa: E402

EMUPIN = "/usr/local/bin/emupin"
TRACEFS = "/sys/kernel/tracing"
POLICY = """\
version: 1
host: {{networking: ovs-dpdk, pool: "{pool}"}}
rules:
  - {{name: measured, match: {{name: "*"}}, placement: ["{placement}"]}}
"""
UNION, FIRST, DEDICATED = "keep", "vcpu:0", "dedicated"
NAMES = {UNION: "union of all vCPUs", FIRST: "vcpu:0", DEDICATED: "dedicated"}
HEADS = (
    "emulator threads", "thefts/s", "stolen ms/s", "longest", "by others: thefts/s", "stolen ms/s",
    "guest: longest gap", "gaps ≥ 54 µs/s", "missed ms/s",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One run; times in milliseconds, all of vCPU 1."""

    thefts: float
    stolen: float
    longest: float
    others: float
    others_stolen: float
    gap: float
    gaps: float
    missed: float
    emulator: str
    """The CPUs that the emulator threads really had."""


def main(seconds: float, rounds: int, kind: str) -> None:
    os.sched_setaffinity(0, {CPUS[0]})
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as folder:
        host = PrivateHost(Path(folder), "bench", native_version(), shares_pids=True)
        with host:
            host.run("mount", "-t", "tracefs", "nodev", TRACEFS)
            host.run("sh", str(ROOT / "install.sh"))
            host.reload()
            polling.write_disk(host)
            found: dict[str, list[Measured]] = {placement: [] for placement in NAMES}
            with preferred(host):
                for _ in range(rounds):
                    for placement, runs in found.items():
                        runs.append(measure(host, placement, seconds, kind))
                        print(f"{NAMES[placement]}: {runs[-1]}", file=sys.stderr)
    print(f"{len(CPUS)} CPUs, {kind}, {rounds} of {seconds:g} s, medians; load average {os.getloadavg()[1]:.1f}\n")
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for placement, runs in found.items():
        print(row(placement, runs))


@contextlib.contextmanager
def preferred(host: PrivateHost) -> Iterator[None]:
    """Let all of the host, and this process, come before the machine's other work."""
    group, weight, most = next(
        (group, group / name, most)
        for group in host.groups
        for name, most in (("cpu.shares", "262144"), ("cpu.weight", "10000"))
        if (group / name).exists()
    )
    weight.write_text(most)
    mine = f"{os.getpid()}"
    (group / "cgroup.procs").write_text(mine)
    try:
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(mine)


def measure(host: PrivateHost, placement: str, seconds: float, kind: str) -> Measured:
    """Start the guest under the placement, let it settle, and look at it."""
    pins = (CPUS[1], CPUS[1]) if placement == DEDICATED and len(CPUS) == 2 else CPUS[:2]
    host.set_policy(POLICY.format(pool=CPUS[0] if len(CPUS) == 2 else CPUS[2], placement=placement))
    guest = Poller(pins=pins, kind=kind)
    start(host, guest)
    eventually(lambda: host.path(polling.SERIAL).exists() and len(polling.serial(host)) > 3, 30)
    with polling.busy_emulator(host, guest, viewers=4):
        time.sleep(2)
        first = len(polling.serial(host))
        tracer = host.begin(EMUPIN, "trace", guest.name, "--for", f"{seconds}s", "--json")
        out, err = tracer.communicate(timeout=seconds + 60)
        lines = polling.serial(host)
    host.virsh("destroy", guest.uuid)
    host.virsh("undefine", guest.uuid)
    host.path(polling.SERIAL).unlink()
    if tracer.returncode:
        raise SystemExit(f"emupin trace: {err}")
    trace = json.loads(out)
    if trace["lost"]:
        raise SystemExit(f"{trace['lost']} events were lost: the figures would be too low")
    # The period in which the trace began has some of the time before it.
    return figures(trace, lines[first + 1 :], polling.hertz(lines))


def figures(trace: dict[str, Any], lines: list[polling.Report], hertz: float) -> Measured:
    thefts = trace["vcpus"][1]["thefts"]
    ours = [each for each in thefts if each["thief"]["whose"] == "this guest" and each["thief"]["kind"] == "emulator"]
    others = [each for each in thefts if each not in ours]

    def total(group: list[dict[str, Any]], *keys: str) -> float:
        return float(sum(each[key] for each in group for key in keys))

    gaps = [report.gaps[1] for report in lines]
    period = len(lines) * polling.REPORT_SECONDS
    return Measured(
        total(ours, "preemptions", "blocks") / trace["seconds"],
        total(ours, "stolen") * 1e3 / trace["seconds"],
        max((each["longest"] for each in ours), default=0.0) * 1e3,
        total(others, "preemptions", "blocks") / trace["seconds"],
        total(others, "stolen") * 1e3 / trace["seconds"],
        max(gap.longest for gap in gaps) / hertz * 1e3,
        sum(gap.count for gap in gaps) / period,
        sum(gap.total for gap in gaps) / hertz * 1e3 / period,
        trace["emulator"],
    )


def row(placement: str, runs: list[Measured]) -> str:
    def median(key: str) -> float:
        return float(statistics.median(getattr(each, key) for each in runs))

    # "Exactly none" must be none in every run, whatever the median says.
    thefts = median("thefts") if any(each.thefts for each in runs) else 0
    return (
        f"| {NAMES[placement]} (CPU {runs[0].emulator}) | {thefts:.1f} | {median('stolen'):.2f} | "
        f"{median('longest'):.2f} ms | {median('others'):.1f} | {median('others_stolen'):.2f} | "
        f"{median('gap'):.2f} ms | {median('gaps'):.1f} | {median('missed'):.2f} |"
    )


# -- what a trace costs -----------------------------------------------------------------------------------------------

PING_PONG = """\
import os, sys, time
there, back = os.pipe(), os.pipe()
count = 20_000
if os.fork() == 0:
    for _ in range(count):
        os.read(there[0], 1)
        os.write(back[1], b"x")
    os._exit(0)
start = time.process_time()
for _ in range(count):
    os.write(there[1], b"x")
    os.read(back[0], 1)
used = time.process_time() - start
os.wait()
print(used / count / 2 * 1e9)
"""


def cost(rounds: int = 7) -> None:
    """Nanoseconds that a switch on the polling vCPU's CPU takes longer while that CPU is traced, in turns."""
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as folder:
        host = PrivateHost(Path(folder), "bench", native_version(), shares_pids=True)
        with host:
            host.run("mount", "-t", "tracefs", "nodev", TRACEFS)
            host.run("sh", str(ROOT / "install.sh"))
            polling.write_disk(host)
            guest = Poller()
            start(host, guest)
            host.virsh("suspend", guest.uuid)
            found: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                for traced, times in found.items():
                    tracer = host.begin(EMUPIN, "trace", guest.name, "--for", "60s") if traced else None
                    time.sleep(1)
                    command = ["taskset", "-c", str(CPUS[1]), sys.executable, "-c", PING_PONG]
                    times.append(float(subprocess.run(command, capture_output=True, check=True).stdout))
                    if tracer:
                        (made,) = host.path(f"{TRACEFS}/instances").glob("emupin-*")
                        os.kill(int(made.name.split("-")[1]), signal.SIGINT)
                        tracer.communicate(timeout=30)
    off, on = (statistics.median(times) for times in found.values())
    print(f"a switch, CPU time of one side: {off:.0f} ns, traced {on:.0f} ns: {on - off:.0f} ns more")


if __name__ == "__main__":
    if sys.argv[1:2] == ["cost"]:
        cost()
    else:
        seconds, rounds, kind = (*sys.argv[1:], *("60", "1", "qemu")[len(sys.argv) - 1 :])
        main(float(seconds), int(rounds), kind)
