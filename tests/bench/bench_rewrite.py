"""How `emupin rewrite --in-place` compares with `xmlstarlet ed -L`, the one-liner that an operator would use instead.

Run on demand: `python tests/bench/bench_rewrite.py [FILES] [ROUNDS]`. All sides are whole processes and take turns;
what counts is the ratios of the medians: on one CPU of processor time, with all CPUs of time by the clock. The goals:
at most 2.5 on one CPU, at most 1 with all. xmlstarlet is written in C and does less: it puts one CPU into all files,
decides nothing, and prints each document anew, quotes and blanks its own. A third side is what emupin cannot save: the
standard library's parser run over each file without looking at anything, and the file replaced as it was. The files
are in `build/`, or in $BENCH_DIR: the file system is a large part of the result. Take one with a journal, as hosts
have. ext4 without one does not use an inode again for the first minutes (`recently_deleted` in the kernel's
fs/ext4/ialloc.c) and looks past all of those for each new file: whoever replaces thousands of files pays for the round
before, and `xmlstarlet`, which writes into the old ones, does not.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
SAMPLE = ROOT / "fixtures" / "xml" / "nova-1.1-pinned.xml"
OURS, THEIRS, LEAST = "emupin rewrite --in-place", "xmlstarlet ed -L", "expat alone, and replace"
UUID = b"01234567-89ab-cdef-0123-"
POLICY = "version: 1\nrules:\n  - name: nfv\n    match: {name: 'instance-*'}\n    placement: ['vcpu:0']\n"
LAUNCHER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from emupin.cli import main; sys.exit(main())"
EDIT = ("ed", "-L", "-u", "/domain/cputune/emulatorpin/@cpuset", "-v", "12")
FLOOR = """\
import os, sys
from pyexpat import ParserCreate
for name in sorted(os.listdir(sys.argv[1])):
    path = sys.argv[1] + "/" + name
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, 1 << 20)
    os.close(descriptor)
    ParserCreate().Parse(data, True)
    descriptor = os.open(path + "~", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)
    os.rename(path + "~", path)
"""

Spent = tuple[float, float]
"""Seconds by the clock, and of the processors."""


def fill(folder: Path, count: int) -> None:
    """Copies of the sample, each with a name and a UUID of its own."""
    from emupin.guest import domainxml

    data = SAMPLE.read_bytes()
    guest = domainxml.read(data, str(SAMPLE))
    for number in range(count):
        text = data.replace(guest.name.encode(), b"instance-%08x" % number)
        if guest.uuid:
            text = text.replace(guest.uuid.encode(), UUID + b"%012x" % number)
        (folder / f"instance-{number:08x}.xml").write_bytes(text)


def spent(command: list[str]) -> Spent:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, processor


def commands(where: Path, folder: Path) -> dict[str, list[str]]:
    wishes = ["--in-place", "--host", "none", "--policy", str(where / "policy.yaml")]
    files = sorted(str(path) for path in folder.iterdir())
    return {
        OURS: [PYTHON, "-c", LAUNCHER, str(ROOT / "src"), "rewrite", *wishes, str(folder)],
        THEIRS: ["xmlstarlet", *EDIT, *files],
        LEAST: [PYTHON, "-c", FLOOR, str(folder)],
    }


def measure(where: Path, count: int, rounds: int, before: list[str]) -> dict[str, list[Spent]]:
    """What each side took, round by round, run by `before`; a first round warms up and does not count."""
    results: dict[str, list[Spent]] = {OURS: [], THEIRS: [], LEAST: []}
    for _ in range(rounds + 1):
        folders = {side: Path(tempfile.mkdtemp(dir=where)) for side in results}
        for folder in folders.values():
            fill(folder, count)
        os.sync()
        for side, folder in folders.items():
            results[side].append(spent([*before, *commands(where, folder)[side]]))
    return {side: values[1:] for side, values in results.items()}


def report(title: str, results: dict[str, list[Spent]], column: int, goal: float) -> None:
    print(title)
    middles = {side: statistics.median(value[column] for value in values) for side, values in results.items()}
    for side, values in results.items():
        print(f"  {side:26} {middles[side]:.3f} s  (from {min(value[column] for value in values):.3f} s)")
    print(f"  emupin to xmlstarlet: {middles[OURS] / middles[THEIRS]:.2f}  (goal: at most {goal})")


def main(count: int = 2000, rounds: int = 7) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    # As installed, where the library is compiled.
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(ROOT / "src" / "emupin")], check=True)
    base = Path(os.environ.get("BENCH_DIR", ROOT / "build"))
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=base) as name:
        where = Path(name)
        (where / "policy.yaml").write_text(POLICY)
        one = measure(where, count, rounds, ["taskset", "-c", str(min(os.sched_getaffinity(0)))])
        every = measure(where, count, rounds, [])
    print(f"{count} files of {SAMPLE.stat().st_size} bytes, {rounds} rounds, medians of whole processes")
    report("on one CPU, processor time", one, 1, 2.5)
    report(f"on {len(os.sched_getaffinity(0))} CPUs, by the clock", every, 0, 1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
