"""What stood in a definition before: kept through any number of records, put back only if nobody came after."""

from __future__ import annotations

from pathlib import Path

import pytest

from emupin.base.errors import HostError
from emupin.node import former

UUID = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"


def remember(root: Path, there: former.Pins, ours: former.Pins) -> None:
    former.remember(str(root), UUID, "persistent", there, ours)


def back(root: Path, there: former.Pins) -> former.Pins:
    return former.to_put_back(there, former.recall(str(root), UUID)["persistent"])


def test_the_first_pin_is_kept_through_our_own(tmp_path: Path) -> None:
    remember(tmp_path, {"emulator": "0-3"}, {"emulator": "2"})
    remember(tmp_path, {"emulator": "2"}, {"emulator": "5"})
    assert back(tmp_path, {"emulator": "5"}) == {"emulator": "0-3"}


def test_a_pin_of_somebody_elses_is_what_stood_before(tmp_path: Path) -> None:
    remember(tmp_path, {}, {"emulator": "2"})
    assert back(tmp_path, {"emulator": "2"}) == {"emulator": None}
    remember(tmp_path, {"emulator": "7"}, {"emulator": "2"})
    assert back(tmp_path, {"emulator": "2"}) == {"emulator": "7"}


def test_what_was_changed_since_is_not_put_back(tmp_path: Path) -> None:
    remember(tmp_path, {"emulator": "0-3", "1": "3"}, {"emulator": "2", "1": "2"})
    assert back(tmp_path, {"emulator": "6", "1": "2"}) == {"1": "3"}
    assert back(tmp_path, {}) == {}


def test_it_is_forgotten_with_its_last_definition(tmp_path: Path) -> None:
    remember(tmp_path, {}, {"emulator": "2"})
    assert former.known_uuids(str(tmp_path)) == [UUID]
    former.forget(str(tmp_path), UUID, "live")
    assert former.known_uuids(str(tmp_path)) == [UUID]
    former.forget(str(tmp_path), UUID, "persistent")
    assert former.known_uuids(str(tmp_path)) == []


@pytest.mark.parametrize("text", ["", "[]", '{"live": {}}', '{"live": 7}'])
def test_a_file_that_is_not_ours_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "var/lib/emupin/former" / UUID
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(HostError, match="is not what emupin writes"):
        former.recall(str(tmp_path), UUID)
