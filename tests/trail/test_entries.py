"""The audit trail's own mechanics: whole lines, JSON, many writers."""

from __future__ import annotations

import json
import multiprocessing
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emupin.base import files
from emupin.base.errors import HostError
from emupin.base.jsonline import encode
from emupin.base.text import printable
from emupin.trail import writer

if TYPE_CHECKING:
    from pathlib import Path

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_what_the_json_package_writes(value: object) -> None:
    assert encode(value) == json.dumps(value)  # type: ignore[arg-type]


def test_undecodable_bytes_survive_as_json() -> None:
    assert json.loads(encode("nfv-\udce4")) == "nfv-\udce4"


@given(st.text())
def test_a_printable_text_has_one_line_and_no_control_character(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def write(folder: str, number_of_writer: int) -> None:
    for number in range(20):
        writer.append(folder, {"writer": number_of_writer, "number": number, "padding": "x" * 3000})


def test_writers_at_the_same_time_lose_and_mix_nothing(tmp_path: Path) -> None:
    processes = [multiprocessing.Process(target=write, args=(str(tmp_path), writer)) for writer in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (tmp_path / "var/log/emupin/audit.jsonl").read_text().splitlines()
    entries = {(entry["writer"], entry["number"]) for entry in map(json.loads, lines)}
    assert len(lines) == len(entries) == 160


def test_a_trail_that_another_writer_holds_is_waited_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    writer.append(str(tmp_path), {})
    holder = os.open(tmp_path / "var/log/emupin", os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="cannot be written: Resource temporarily unavailable"):
            writer.append(str(tmp_path), {})
    finally:
        os.close(holder)


def test_a_link_in_the_place_of_the_trail_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "var/log/emupin").mkdir(parents=True)
    (tmp_path / "var/log/emupin/audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="cannot be written"):
        writer.append(str(tmp_path), {})
    assert not (tmp_path / "elsewhere").exists()
