#!/usr/bin/python3
"""Runs the checks of this boot inside a real host, and writes a line of JSON for each on the second serial port."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import tty
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from host.inside import kit
from host.inside.all import CHECKS

SECONDS = 1200
"""What one check may take. Each waits for what it needs; this is for one that hangs."""


def result(check: kit.Check) -> dict[str, Any]:
    """The check in a process of its own, so that nothing of it, not even a crash, touches the next."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = multiprocessing.get_context("fork").Process(target=caught, args=(check, output.fileno()))
        process.start()
        process.join(SECONDS)
        process.kill()
        process.join()
        output.seek(0)
        return {
            "check": check.__name__,
            "passed": process.exitcode == 0,
            "seconds": round(time.monotonic() - began, 1),
            "said": output.read()[-6000:],
        }


def caught(check: kit.Check, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    check()


def open_port() -> int:
    port = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
    tty.setraw(port)
    return port


def put(port: int, line: dict[str, Any]) -> None:
    data = (json.dumps(line) + "\n").encode("ascii")
    while data:
        data = data[os.write(port, data[:4096]) :]


def main() -> None:
    port, boot = open_port(), kit.boot()
    for check in CHECKS[boot]:
        if kit.ONLY.get(check.__name__, kit.release()) != kit.release():
            continue
        done = result(check)
        put(port, done)
        print(f"{kit.read('/proc/uptime').split()[0]} {done['check']}: {done['passed']}", flush=True)
    put(port, {"boot": boot, "done": True})
    subprocess.run(("systemctl", "--no-block", "reboot") if boot == 1 else ("systemctl", "poweroff", "-ff"), check=True)


if __name__ == "__main__":
    main()
