"""What stood in a definition before: kept through any number of records, put back only if nobody came after."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from decisions import GuestXml

from emupin.base.errors import HostError
from emupin.node import former

UUID = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"
SOURCES = str(Path(former.__file__).parents[2])


RUN = "4242 17"


def remember(root: Path, there: former.Pins, ours: former.Pins) -> None:
    former.remember(str(root), UUID, "persistent", there, ours, "")


def back(root: Path, there: former.Pins) -> former.Pins:
    return former.to_put_back(there, former.recall(str(root), UUID)["persistent"])


def counting(root: Path, run: str) -> list[str]:
    return sorted(former.counting(former.recall(str(root), UUID), run))


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


def test_a_pin_that_was_like_ours_already_is_none_to_put_back(tmp_path: Path) -> None:
    """Only the iothread had another one."""
    remember(tmp_path, {"emulator": "2", "1": "3"}, {"emulator": "2", "1": "2"})
    assert back(tmp_path, {"emulator": "2", "1": "2"}) == {"1": "3"}


def test_what_is_known_of_a_live_definition_ends_with_that_run(tmp_path: Path) -> None:
    former.remember(str(tmp_path), UUID, "live", {}, {"emulator": "2"}, RUN)
    assert counting(tmp_path, RUN) == ["live"]
    assert counting(tmp_path, "4300 99") == counting(tmp_path, "") == []


def test_a_file_of_before_there_were_runs_counts_for_the_persistent_definition_alone(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/emupin/former" / UUID
    path.parent.mkdir(parents=True)
    known = '{"before": {}, "ours": {"emulator": "2"}}'
    path.write_text(f'{{"live": {known}}}')
    assert counting(tmp_path, RUN) == counting(tmp_path, "") == []
    path.write_text(f'{{"live": {known}, "persistent": {known}}}')
    assert counting(tmp_path, "") == ["persistent"]


def test_a_run_that_began_with_our_pin_has_it_from_its_definition(tmp_path: Path) -> None:
    root = str(tmp_path)
    remember(tmp_path, {"emulator": "0-3"}, {"emulator": "2"})
    assert counting(tmp_path, RUN) == ["live", "persistent"]
    former.remember(root, UUID, "live", {"emulator": "2"}, {"emulator": "5"}, RUN)
    assert former.recall(root, UUID)["live"].before == {"emulator": "0-3"}
    former.forget(root, UUID, "persistent", RUN)
    assert counting(tmp_path, RUN) == ["live"]
    assert counting(tmp_path, "4300 99") == []


def test_a_pin_that_is_there_after_it_was_undone_is_somebodys(tmp_path: Path) -> None:
    """Or of a saved state: nobody knows, until somebody asks for it to be undone again."""
    root = str(tmp_path)
    remember(tmp_path, {"emulator": "0-3"}, {"emulator": "2"})
    former.mark_undone(root, UUID, "persistent", "")
    assert back(tmp_path, {"emulator": "2"}) == {"emulator": "0-3"}
    assert former.counting(former.recall(root, UUID), RUN)["live"].undone
    remember(tmp_path, {"emulator": "2"}, {"emulator": "5"})
    assert back(tmp_path, {"emulator": "5"}) == {"emulator": "2"}


def test_our_pin_of_before_is_ours_until_libvirt_has_taken_the_next(tmp_path: Path) -> None:
    remember(tmp_path, {"emulator": "0-3"}, {"emulator": "2"})
    remember(tmp_path, {"emulator": "2"}, {"emulator": "5"})
    assert [back(tmp_path, {"emulator": pin}) for pin in ("2", "5")] == [{"emulator": "0-3"}] * 2
    former.confirm(str(tmp_path), UUID, "persistent")
    assert [back(tmp_path, {"emulator": pin}) for pin in ("2", "5")] == [{}, {"emulator": "0-3"}]


def test_it_is_forgotten_with_its_last_definition(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/emupin/former"
    remember(tmp_path, {}, {"emulator": "2"})
    former.forget(str(tmp_path), UUID, "live", "")
    assert [each.name for each in folder.iterdir()] == [UUID]
    former.forget(str(tmp_path), UUID, "persistent", "")
    former.forget(str(tmp_path), UUID, "persistent", "")
    assert list(folder.iterdir()) == []


def test_guests_that_are_no_more_are_forgotten(tmp_path: Path) -> None:
    former.keep_only(str(tmp_path), frozenset())
    remember(tmp_path, {}, {"emulator": "2"})
    former.keep_only(str(tmp_path), frozenset([UUID]))
    assert back(tmp_path, {"emulator": "2"}) == {"emulator": None}
    former.keep_only(str(tmp_path), frozenset(["another"]))
    assert former.recall(str(tmp_path), UUID) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"live": {}}', '{"live": 7}'])
def test_a_file_that_is_not_ours_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "var/lib/emupin/former" / UUID
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(HostError, match="is not what emupin writes"):
        former.recall(str(tmp_path), UUID)


def test_what_is_gone_for_a_while_is_known_still(tmp_path: Path) -> None:
    """An iothread that is taken out may come again with a snapshot."""
    remember(tmp_path, {"1": "3"}, {"emulator": "2", "1": "2"})
    remember(tmp_path, {"emulator": "2"}, {"emulator": "5"})
    assert back(tmp_path, {"emulator": "5", "1": "2"}) == {"emulator": None, "1": "3"}
    remember(tmp_path, {"emulator": "5", "1": "7"}, {"emulator": "6"})
    assert back(tmp_path, {"emulator": "6", "1": "2"}) == {"emulator": None}, "somebody had pinned it meanwhile"


def test_what_a_saved_state_brings_again_is_known_through_the_next_record(tmp_path: Path) -> None:
    remember(tmp_path, {"emulator": "0-3"}, {"emulator": "2"})
    former.mark_undone(str(tmp_path), UUID, "persistent", "")
    remember(tmp_path, {"emulator": "2"}, {"1": "2"})
    assert back(tmp_path, {"emulator": "2", "1": "2"}) == {"emulator": "0-3", "1": None}


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """A recording process is at the live definition of a guest while `apply` is at the persistent one."""
    root = str(tmp_path)
    code = (
        "import sys; from emupin.node import former; root, uuid, kind = sys.argv[1:]\n"
        "for cpu in range(100):\n"
        "    former.remember(root, uuid, kind, {'emulator': str(cpu)}, {'emulator': str(cpu + 1)}, 'x')"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, root, UUID, kind], env={**os.environ, "PYTHONPATH": SOURCES})
        for kind in ("live", "persistent")
    ]
    assert [each.wait(60) for each in both] == [0, 0]
    found = {kind: each.before["emulator"] for kind, each in former.recall(root, UUID).items()}
    assert found == {"live": "0", "persistent": "0"}


def test_a_pin_that_emupin_has_taken_out_is_not_there_to_leave_again(tmp_path: Path) -> None:
    """It could not stay; `apply --undo` knows it. Nobody records that it goes, again and again."""
    guest = GuestXml(emulatorpin="2", iothreads={1: ""}).domain
    remember(tmp_path, {"emulator": "0-3", "1": "99"}, {"emulator": "2", "1": None})
    assert back(tmp_path, former.pins_of(guest)) == {"emulator": "0-3", "1": "99"}
    assert former.stood(str(tmp_path), guest) == {"emulator": frozenset(range(4))}
