"""Audit trails for tests: written by the writer itself, then changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import suites

from emupin.base.files import AUDIT
from emupin.trail import writer
from emupin.trail.chain import verify
from emupin.trail.findings import Verdict
from emupin.trail.writer import read_head

if TYPE_CHECKING:
    from emupin.base.jsonline import Json


def entry(number: int, **more: Json) -> dict[str, Json]:
    """An entry of the usual shape; each is another one."""
    facts: dict[str, Json] = {
        "kind": "kvm",
        "vcpus": 4,
        "vcpupins": {str(vcpu): str(vcpu + 2) for vcpu in range(4)},
        "online": "0-15",
        "others": {"vcpus": {}, "dedicated": {}, "shared": {}, "previous": None},
    }
    minute, second = divmod(number % 3600, 60)
    return {
        "time": f"2026-11-22T{number // 3600 % 24:02}:{minute:02}:{second:02}.000000Z",
        "host": "node-1",
        "op": "prepare",
        "uuid": f"5a3f1d2c-7f0e-4c50-9a1b-{number:012}",
        "name": f"nfv-{number}",
        "rule": "nfv",
        "placement": "vcpu:0",
        "before": "2-5",
        "after": "2",
        "reason": "rule 'nfv' says vcpu:0",
        "warnings": [],
        "outcome": "rewritten",
        "diff": ["-    <emulatorpin cpuset='2-5'/>", "+    <emulatorpin cpuset='2'/>"],
        "facts": facts,
        **more,
    }


def write(root: Path, count: int, first: int = 0) -> Path:
    """Append entries; the trail's file."""
    for number in range(first, first + count):
        writer.append(str(root), entry(number))
    return current(root)


def current(root: Path) -> Path:
    return Path(f"{root}{AUDIT}")


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def proven(path: Path, root: Path | None = None) -> Verdict:
    """The verdict on one file, with the head kept below `root`."""
    return verify([str(path)], read_head(str(root)) if root else None)


def kinds(verdict: Verdict) -> list[str]:
    """What is found, remarks left out."""
    return [finding.kind for finding in verdict.findings if not finding.is_remark]


def needs(present: bool, what: str) -> None:
    """Skip the test; where continuous integration runs it, nothing may be skipped."""
    suites.need("this", "" if present else what)
