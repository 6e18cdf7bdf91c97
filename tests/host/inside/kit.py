"""What the checks inside a real host are made of: commands that must succeed, conditions that must come true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Check = Callable[[], None]
Result = TypeVar("Result")

PAYLOAD = Path(__file__).resolve().parents[4]
NEW, OLD = PAYLOAD / "new", PAYLOAD / "old"
"""The checkout under test, and the first release."""
OLDER_PACKAGE, PACKAGE = PAYLOAD / "older/emupin.deb", PAYLOAD / "current/emupin.deb"
"""One to upgrade from, and the checkout's."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "LIBVIRT_DEFAULT_URI": "qemu:///system",
}
SECONDS = 600
"""What a command or a condition may take: a processor here is some fifty times slower than a real one."""

CHECKS: dict[int, list[Check]] = {1: [], 2: []}
"""By boot, in order. Each runs in a process of its own, and finds the host as the one before left it."""


ONLY: dict[str, str] = {}
"""The release that a check is about, by the check's name, where it is about one."""


def check(boot: int, only: str = "") -> Callable[[Check], Check]:
    def add(function: Check) -> Check:
        CHECKS[boot].append(function)
        if only:
            ONLY[function.__name__] = only
        return function

    return add


def run(*argv: str, input: str = "", status: int | None = 0) -> str:
    """What it prints, stdout then stderr. AssertionError where the status is another; None takes any."""
    done = subprocess.run(
        argv, input=input, capture_output=True, text=True, errors="replace", env=ENVIRONMENT, cwd="/", timeout=SECONDS
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert status in (done.returncode, None), f"{' '.join(argv)}: status {done.returncode}, not {status}:\n{said}"
    return said


def virsh(*argv: str, input: str = "", status: int | None = 0) -> str:
    return run("virsh", "-q", *argv, input=input, status=status)


def emupin(*argv: str, status: int | None = 0) -> str:
    return run("emupin", *argv, status=status)


def emupin_json(*argv: str, status: int | None = 0) -> Any:
    done = subprocess.run(
        ("emupin", *argv, "--json"), capture_output=True, text=True, env=ENVIRONMENT, timeout=SECONDS
    )  # fmt: skip
    assert status in (done.returncode, None), f"emupin {argv}: {done.returncode}: {done.stderr}{done.stdout}"
    return json.loads(done.stdout)


def eventually(condition: Callable[[], Result], what: str) -> Result:
    """The first true value of `condition`; AssertionError where it stays false."""
    end = time.monotonic() + SECONDS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not so after {SECONDS} s: {what}; last: {value!r}"
        time.sleep(0.5)


def becomes(look: Callable[[], object], wanted: object, what: str) -> None:
    """Wait until `look` finds what is wanted."""
    end = time.monotonic() + SECONDS
    while (found := look()) != wanted:
        assert time.monotonic() < end, f"not so after {SECONDS} s: {what}\n  found  {found!r}\n  wanted {wanted!r}"
        time.sleep(0.5)


def same(found: object, wanted: object, what: str = "") -> None:
    assert found == wanted, f"{what}\n  found  {found!r}\n  wanted {wanted!r}"


def read(path: str | Path) -> str:
    return Path(path).read_text(errors="replace").strip()


def write(path: str | Path, text: str, mode: int = 0o644) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    os.chmod(path, mode)


def journal(*argv: str) -> list[str]:
    """Lines of this boot's journal."""
    return run("journalctl", "--quiet", "--no-pager", "--boot", "--output=cat", *argv).splitlines()


def audit(name: str) -> list[tuple[str, str]]:
    """Operation and outcome of the guest's entries; what is being written is no line yet."""
    trail = Path("/var/log/emupin/audit.jsonl")
    lines = trail.read_text().splitlines(keepends=True) if trail.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(entry["op"], entry["outcome"]) for entry in entries if entry.get("name") == name]


def release() -> str:
    """Debian's: 12 or 13."""
    found = re.search(r'^VERSION_ID="(\d+)"$', read("/etc/os-release"), re.M)
    assert found
    return found[1]


def boot() -> int:
    found = re.search(r"\bemupin\.boot=(\d)", read("/proc/cmdline"))
    assert found
    return int(found[1])
