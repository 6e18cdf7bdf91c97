"""How long a browser takes to open and to filter a large fleet's page: tests/bench/bench_report.py [HOSTS ENTRIES]

For 50,000 entries of 500 hosts.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

import year  # noqa: E402
from browser import Browser  # noqa: E402

from emupin.commands.audit_report import make  # noqa: E402
from emupin.report.page import write  # noqa: E402
from emupin.trail.sources import find_trails  # noqa: E402

STEPS = (
    "q=nfv",
    "outcome=refused",
    "q=router 12",
    "since=2026-05-01&until=2026-06-01",
    "sort=name",
    "host=compute-0003",
    "",
)

TIME_STEP = """\
(async () => {
  const start = performance.now(), painted = (done) => requestAnimationFrame(() => setTimeout(done));
  location.hash = HASH;
  await new Promise((done) => addEventListener("hashchange", () => painted(done), {once: true}));
  return performance.now() - start;
})()"""


def main(hosts: int = 500, entries: int = 50_000) -> None:
    folder = Path(tempfile.mkdtemp(prefix="emupin-bench-"))
    try:
        year.write_fleet(folder / "fleet", hosts, entries)
        start = time.process_time()
        write(make(find_trails([str(folder / "fleet")], ""), []), str(folder / "page.html"))
        size = (folder / "page.html").stat().st_size
        print(
            f"{entries:,} entries of {hosts:,} hosts: {time.process_time() - start:.1f} s to make, {size / 1e6:.1f} MB"
        )
        browse(folder)
    finally:
        shutil.rmtree(folder)


def browse(folder: Path, page: str = "page.html") -> None:
    browser = Browser(folder / "profile")
    try:
        browser.look(1280, 1200)
        print(f"open: {browser.open(folder / page) * 1000:.0f} ms")
        for step in STEPS:
            spent = browser.run(TIME_STEP.replace("HASH", repr(f"#{step}")))
            print(f"#{step}: {spent:.0f} ms, {browser.text('#count')}")
        heap = browser.send("Runtime.getHeapUsage")["usedSize"]
        print(f"heap: {heap / 1e6:.0f} MB")
    finally:
        browser.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
