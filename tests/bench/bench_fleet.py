"""What `emupin fleet` takes for thousands of collected nodes, and whether its memory depends on how many there are.

Run on demand: `python tests/bench/bench_fleet.py [NODES]` (default 2000, of 50 guests each). The goals: all cores busy,
and a peak of memory that for ten times the nodes grows by no more than the table's own lines (1 KiB a node). The nodes
are recorded: five hosts of fixtures/host with pretended guests, each collected once and then copied.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from hosts import domain_xml  # noqa: E402

from emupin.fleet.excerpt import excerpt  # noqa: E402

GUESTS = 50
KINDS = ("xeon-2x32-smt", "epyc-2x64-smt", "xeon-2x32-no-smt", "epyc-1x64-smt", "altra-1x80")
POLICY = """\
version: 1
host: {networking: ovs-dpdk, reserved: "0", pool: "1"}
rules:
  - name: nfv
    match: {name: "nfv-*", pinned: true}
    placement: [%s]
"""


def make_kind(folder: Path, kind: str) -> Path:
    """A node of `kind` in the form of a collection."""
    (folder / "guests").mkdir(parents=True)
    (folder / "host.json").write_text((ROOT / f"fixtures/host/{kind}.json").read_text())
    names = [f"nfv-{number}" for number in range(GUESTS)]
    for number, name in enumerate(names):
        uuid = f"5a3f1d2c-7f0e-4c50-9a1b-{number:012}"
        (folder / f"guests/{uuid}.xml").write_bytes(excerpt(domain_xml(name, uuid=uuid).encode(), name))
    threads = [{"tid": tid, "name": "qemu", "allowed": "2", "expected": "2", "drift": False} for tid in range(12)]
    guests = [{"name": name, "plan": {"failed": False}, "threads": threads} for name in names]
    summary = {"guests": GUESTS, "drift": 0}
    (folder / "status.json").write_text(
        json.dumps({"policy": None, "guests": guests, "errors": [], "summary": summary})
    )
    (folder / "doctor.json").write_text(json.dumps({"problem": 0, "warning": 1, "findings": []}))
    (folder / "head").write_text(f"{'0' * 64} 1 2026-01-01T00:00:00Z\n")
    (folder / "node.json").write_text(json.dumps({"emupin_collection": 1, "version": "0.2.0", "build": "0" * 12}))
    return folder


def make(folder: Path, count: int) -> Path:
    """`count` nodes; copies share their files."""
    kinds = [make_kind(folder / f"kinds/{kind}", kind) for kind in KINDS]
    fleet = folder / "fleet"
    fleet.mkdir()
    for number in range(count):
        subprocess.run(["cp", "-lR", kinds[number % len(kinds)], fleet / f"node{number:05}"], check=True)
    return fleet


def measure(fleet: Path, policies: Path, jobs: int) -> tuple[float, float, float, str]:
    """Seconds by the clock and of processor time, MiB of the largest process, and the summary."""
    new, old = policies / "new.yaml", policies / "old.yaml"
    new.write_text(POLICY % "pool")
    old.write_text(POLICY % '"vcpu:0"')
    words = ["fleet", "--jobs", str(jobs), "--policy", str(new), "--against", str(old), str(fleet)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "emupin", *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
    ) as process:
        assert process.stdout
        text = process.stdout.read().decode()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, spent, used.ru_maxrss / 1024, next(line for line in text.splitlines() if " nodes, " in line)


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    cores = len(os.sched_getaffinity(0))
    peaks = []
    for count in (nodes // 10, nodes):
        with tempfile.TemporaryDirectory() as name:
            fleet = make(Path(name), count)
            for jobs in sorted({1, cores}):
                seconds, spent, peak, summary = measure(fleet, Path(name), jobs)
                used = f"{seconds:6.1f} s, processor {spent:6.1f} s, {peak:5.0f} MiB"
                print(f"{count:6,} nodes, {jobs} jobs: {used}  {summary}")
        peaks.append(peak)
    grown = (peaks[1] - peaks[0]) * 1024 / (nodes - nodes // 10)
    print(f"memory for each node more: {grown:.2f} KiB (goal: 1 or less)")
    sys.exit(grown > 1)


if __name__ == "__main__":
    main()
