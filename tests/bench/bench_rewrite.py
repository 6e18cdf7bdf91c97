"""How `emupin rewrite --in-place` compares with lxml reading, parsing, serialising and writing the same files.

Run on demand: `python tests/bench/bench_rewrite.py [FILES] [ROUNDS]`. Both sides are whole processes on one CPU and
take turns; what counts is the ratio of the medians, 1 or more meaning that emupin is at least as fast. lxml does less,
it overwrites a file where emupin replaces it in one step. The files are in `build/`, or in $BENCH_DIR: the file system
is a large part of the result. Nothing is deleted before the end: on one machine, with ext4 without a journal, creating
a file took several times as long once thousands had been deleted; why was not looked into.
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


def fill(folder: Path, count: int) -> None:
    """Copies of the sample, each with a name and a UUID of its own."""
    from emupin import domain

    data = SAMPLE.read_bytes()
    guest = domain.read(data, str(SAMPLE))
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


def measure(where: Path, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of emupin and of lxml, round by round; a first round warms up and does not count."""
    policy = where / "policy.yaml"
    policy.write_text(POLICY)
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        folders = [where / f"{side}-{number}" for side in ("emupin", "lxml")]
        for folder in folders:
            folder.mkdir()
            fill(folder, count)
        os.sync()
        ours.append(seconds(emupin(folders[0], policy)))
        theirs.append(seconds([PYTHON, "-c", LXML, str(folders[1])]))
    return ours[1:], theirs[1:]


def main(count: int = 2000, rounds: int = 7) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    # As installed, where the library is compiled.
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(ROOT / "src" / "emupin")], check=True)
    base = Path(os.environ.get("BENCH_DIR", ROOT / "build"))
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=base) as name:
        ours, theirs = measure(Path(name), count, rounds)
    first, second = statistics.median(ours), statistics.median(theirs)
    print(f"{count} files of {SAMPLE.stat().st_size} bytes, {rounds} rounds, medians of whole processes on one CPU")
    print(f"emupin rewrite --in-place  {first:.3f} s  {count / first:7.0f} files/s  (from {min(ours):.3f} s)")
    print(f"lxml parse and write       {second:.3f} s  {count / second:7.0f} files/s  (from {min(theirs):.3f} s)")
    print(f"rate of emupin to lxml     {second / first:.2f}  (by the fastest rounds {min(theirs) / min(ours):.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
