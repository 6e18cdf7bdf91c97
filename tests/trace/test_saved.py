"""Saved traces: read as they were written, and refused with the reason where they are not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_traces as made
import pytest
from command import emupin

from emupin.base.errors import HostError
from emupin.trace import saved

TRACE = made.trace(
    made.vcpu(0),
    made.vcpu(1, made.theft("emulator", 370, 0.7), made.theft("vcpu", 1, 0.1, number=3), involuntary=371, wait=0.1),
    remarks=("it ended",),
)


def save(folder: Path, values: object, name: str = "trace.json") -> str:
    path = folder / name
    path.write_text(json.dumps(values))
    return str(path)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert saved.read(save(tmp_path, saved.to_json(TRACE))) == TRACE


def damaged(change: str) -> Any:
    values: Any = json.loads(json.dumps(saved.to_json(TRACE)))
    theft = values["vcpus"][1]["thefts"][0]
    if change == "missing":
        del values["vcpus"][0]["gaps"]["longest"]
    if change == "text":
        theft["stolen"] = "much"
    if change == "negative":
        theft["preemptions"] = -1
    if change == "lengths":
        theft["lengths"].pop()
    if change == "list":
        values["vcpus"] = 7
    if change == "version":
        values["emupin_trace"] = 2
    return values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "is not a whole trace: 'longest' is missing"),
        ("text", "is not a whole trace: 'much' is not a number of seconds"),
        ("negative", "is not a whole trace: -1 is not a count"),
        ("lengths", "is not a whole trace: 8 lengths instead of 9"),
        ("list", "is not a whole trace: 'int' object is not iterable"),
        ("version", "is not a trace: it has no 'emupin_trace': 1"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(HostError) as caught:
        saved.read(save(tmp_path, damaged(change)))
    assert f"{says}; `emupin trace GUEST --json -o FILE` writes one" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 5000, '"x"'])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(HostError):
        saved.read(str(tmp_path / "x"))
    with pytest.raises(HostError, match="cannot be read"):
        saved.read(str(tmp_path / "y"))


# -- the command on files ---------------------------------------------------------------------------------------------


def test_saved_traces_are_shown_and_compared_on_any_machine(tmp_path: Path) -> None:
    before = save(tmp_path, saved.to_json(TRACE), "before.json")
    after = save(tmp_path, saved.to_json(made.trace(made.vcpu(1))), "after.json")
    shown = emupin(tmp_path, "trace", before)
    assert (shown.returncode, b"37 times a second" in shown.stdout) == (0, True)
    compared = emupin(tmp_path, "trace", after, "--against", before)
    assert b"37.0 to 0.0 a second" in compared.stdout
    both = json.loads(emupin(tmp_path, "trace", after, "--against", before, "--json").stdout)
    assert both["before"] == json.loads(json.dumps(saved.to_json(TRACE)))
    copy = tmp_path / "copy.json"
    assert emupin(tmp_path, "trace", before, "--json", "-o", copy).returncode == 0
    assert saved.read(str(copy)) == TRACE


def test_wrong_words(tmp_path: Path) -> None:
    path = save(tmp_path, saved.to_json(TRACE))
    assert b"-o without --json" in emupin(tmp_path, "trace", path, "-o", "x").stderr
    assert b"no guest of that name" in emupin(tmp_path, "trace", "nfv-9").stderr
    assert b"cannot be written" in emupin(tmp_path, "trace", path, "--json", "-o", tmp_path / "no/x").stderr
