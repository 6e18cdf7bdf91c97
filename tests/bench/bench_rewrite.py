"""How `emupin rewrite --in-place` compares with lxml reading, parsing, serialising and writing the same files.

Run on demand: `python tests/bench/bench_rewrite.py [FILES] [ROUNDS]`. All sides are whole processes on one CPU and take
turns; what counts is the ratio of the medians, 1 or more meaning that emupin is at least as fast. lxml does less: it
overwrites a file where emupin replaces it in one step. A third side is what emupin cannot save: the standard library's
parser run over each file without looking at anything, and the file replaced as it was. The files are in `build/`, or
in $BENCH_DIR: the file system is a large part of the result. Nothing is deleted before the end: on one machine, with
ext4 without a journal, creating a file took several times as long once thousands had been deleted; why was not looked
into.
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
SAMPLE = ROOT / "fixtures" / "xml" / "nova-1.1-pinned.xml"
OURS, THEIRS, LEAST = "emupin rewrite --in-place", "lxml parse and write", "expat alone, and replace"
UUID = b"01234567-89ab-cdef-0123-"
POLICY = "version: 1\nrules:\n  - name: nfv\n    match: {name: 'instance-*'}\n    placement: ['vcpu:0']\n"
LAUNCHER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from emupin.cli import main; sys.exit(main())"
LXML = """\
import os, sys
from lxml import etree
for name in sorted(os.listdir(sys.argv[1])):
    path = sys.argv[1] + "/" + name
    tree = etree.parse(path)
    tree.write(path)
"""
FLOOR = """\
import os, sys
from pyexpat import ParserCreate
for name in sorted(os.listdir(sys.argv[1])):
    path = sys.argv[1] + "/" + name
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, 1 << 20)
    os.close(descriptor)
    ParserCreate(None, " ").Parse(data, True)
    descriptor = os.open(path + "~", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)
    os.rename(path + "~", path)
"""


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


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(["taskset", "-c", str(min(os.sched_getaffinity(0))), *command], check=True)
    return time.perf_counter() - start


def emupin(folder: Path, policy: Path) -> list[str]:
    wishes = ["--in-place", "--jobs", "1", "--host", "none", "--policy", str(policy)]
    return [PYTHON, "-c", LAUNCHER, str(ROOT / "src"), "rewrite", *wishes, str(folder)]


def measure(where: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds by side, round by round; a first round warms up and does not count."""
    policy = where / "policy.yaml"
    policy.write_text(POLICY)
    spent: dict[str, list[float]] = {OURS: [], THEIRS: [], LEAST: []}
    for number in range(rounds + 1):
        folders = {side: where / f"{side.partition(' ')[0]}-{number}" for side in spent}
        for folder in folders.values():
            folder.mkdir()
            fill(folder, count)
        os.sync()
        for side, command in (
            (OURS, emupin(folders[OURS], policy)),
            (THEIRS, [PYTHON, "-c", LXML, str(folders[THEIRS])]),
            (LEAST, [PYTHON, "-c", FLOOR, str(folders[LEAST])]),
        ):
            spent[side].append(seconds(command))
    return {side: values[1:] for side, values in spent.items()}


def main(count: int = 2000, rounds: int = 7) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    # As installed, where the library is compiled.
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(ROOT / "src" / "emupin")], check=True)
    base = Path(os.environ.get("BENCH_DIR", ROOT / "build"))
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=base) as name:
        spent = measure(Path(name), count, rounds)
    print(f"{count} files of {SAMPLE.stat().st_size} bytes, {rounds} rounds, medians of whole processes on one CPU")
    for side, values in spent.items():
        middle = statistics.median(values)
        print(f"{side:26} {middle:.3f} s  {count / middle:7.0f} files/s  (from {min(values):.3f} s)")
    for side in (OURS, LEAST):
        by_median, by_fastest = (of(spent[THEIRS]) / of(spent[side]) for of in (statistics.median, min))
        print(f"rate of {side.partition(' ')[0]} to lxml  {by_median:.2f}  (by the fastest rounds {by_fastest:.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
