"""What `apply --undo` takes back, with a pretended libvirt and a pretended QEMU; real ones: tests/real."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hosts import UUID, FakeGuest, FakeThread, Host, domain_xml

from emupin.base.errors import RecordError
from emupin.commands import undo as command
from emupin.live.undoing import Means, Undone, undo
from emupin.node import former

NAME, STORED, STATUS = "nfv-1", "etc/libvirt/qemu/nfv-1.xml", "run/libvirt/qemu/nfv-1.xml"
CHANGES = {"emulator": ("2-5", "2")}
MAIN = 4242


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """emupin has recorded 2 where 2-5 stood."""
    host = Host(tmp_path)
    host.write(STORED, domain_xml(emulatorpin="2"))
    remember(host, "persistent", "2-5")
    return host


def remember(host: Host, kind: str, before: str | None) -> None:
    run = former.run_of(str(host.root), NAME)
    former.remember(str(host.root), UUID, kind, {"emulator": before}, {"emulator": "2"}, run)


def start(host: Host, started: int = 17) -> FakeGuest:
    """A run of the guest that began with our pin."""
    guest = FakeGuest(
        host, "v2", {MAIN: FakeThread("qemu-system-x86", {2}, "emulator")}, "/machine/qemu-7", cpusets={"emulator": {2}}
    )
    host.write(STATUS, (host.root / STATUS).read_text().replace("'2-5'", "'2'"))
    host.write(f"proc/{MAIN}/stat", f"{MAIN} (qemu-system-x86) S {'0 ' * 18}{started} 0\n")
    return guest


def means(host: Host, guest: FakeGuest | None = None, refused: Callable[[str], bool] = lambda _kind: False) -> Means:
    def put_back(uuid: str, kind: str, pins: Mapping[str, frozenset[int] | None]) -> None:
        if refused(kind):
            raise RecordError("libvirt", "does not answer")
        assert (uuid, pins) == (UUID, {"emulator": frozenset(range(2, 6))})
        path = STATUS if kind == "live" else STORED
        written = (host.root / path).read_text().replace("emulatorpin cpuset='2'", "emulatorpin cpuset='2-5'")
        (host.root / path).unlink()  # As libvirt has it: a new file.
        host.write(path, written)

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        assert guest, "it does not run"
        guest.set_affinity(tid, cpus)

    return Means(set_affinity, put_back)


def take_back(host: Host, how: Means | None) -> list[Undone]:
    return list(undo(str(host.root), [NAME], how))


def test_what_stood_there_before_is_put_back_once(host: Host) -> None:
    seen = Undone(NAME, "persistent XML", CHANGES)
    assert take_back(host, None) == [seen]
    (done,) = take_back(host, means(host))
    assert (done.changes, done.done, done.error) == (CHANGES, True, "")
    assert take_back(host, means(host)) == []
    (entry,) = host.audit()
    assert (entry["op"], entry["outcome"], entry["before"], entry["after"]) == ("undo", "recorded", "2", "2-5")
    assert entry["diff"] == ["-persistent emulator: 2", "+persistent emulator: 2-5"]


def test_a_running_guest_gets_back_what_its_definition_said_and_its_threads_follow(host: Host) -> None:
    guest = start(host)
    assert [(each.where, each.done) for each in take_back(host, means(host, guest))] == [
        ("live XML", True), ("persistent XML", True),
    ]  # fmt: skip
    assert guest.allowed(MAIN) == "2-5"
    assert take_back(host, means(host, guest)) == []


def test_where_libvirt_refuses_no_thread_moves_and_nothing_is_forgotten(host: Host) -> None:
    guest = start(host)
    done = take_back(host, means(host, guest, lambda _kind: True))
    assert [(each.done, each.error) for each in done] == [(False, "libvirt: does not answer")] * 2
    assert guest.allowed(MAIN) == "2"
    assert [(entry["outcome"], entry["after"], entry["diff"]) for entry in host.audit()] == [("failed", "2", [])] * 2
    assert [each.done for each in take_back(host, means(host, guest))] == [True, True]


@pytest.mark.parametrize("refused", ["live", "persistent"])
def test_each_definition_is_tried_and_what_failed_can_be_tried_again(host: Host, refused: str) -> None:
    guest = start(host)
    done = take_back(host, means(host, guest, lambda kind: kind == refused))
    assert {each.where: each.done for each in done} == {
        f"{kind} XML": kind != refused for kind in ("live", "persistent")
    }
    assert guest.allowed(MAIN) == ("2" if refused == "live" else "2-5")
    (again,) = take_back(host, means(host, guest))
    assert (again.where, again.done) == (f"{refused} XML", True)


def test_threads_that_stay_are_said_of_a_definition_that_was_put_back(host: Host) -> None:
    guest = start(host)
    guest.fails[MAIN] = OSError(22, os.strerror(22))
    live, _ = take_back(host, means(host, guest))
    assert live.done
    assert "not all emulator threads are on 2-5" in live.error
    entry = host.audit()[0]
    assert (entry["outcome"], entry["after"], entry["warnings"]) == ("recorded", "2-5", [live.error])


def test_a_pin_that_was_changed_since_stays(host: Host) -> None:
    host.write(STORED, domain_xml(emulatorpin="7"))
    assert take_back(host, means(host)) == []
    assert json.loads((host.root / "var/lib/emupin/former" / UUID).read_text())


def test_a_live_pin_of_another_run_is_not_ours(host: Host) -> None:
    """It was taken back from the persistent definition, and then the operator pinned there himself."""
    start(host)
    remember(host, "live", "2-5")
    former.forget(str(host.root), UUID, "persistent", former.run_of(str(host.root), NAME))
    assert [each.where for each in take_back(host, None)] == ["live XML"]
    start(host, started=99)
    assert take_back(host, None) == []


def test_a_live_pin_that_cannot_be_taken_out_becomes_what_libvirt_would_give_it(host: Host) -> None:
    start(host)
    remember(host, "live", None)
    assert take_back(host, None)[0].changes == {"emulator": ("0-15", "2")}


SAVES = {
    "a managed save": ["save/nfv-1.save"],
    "a snapshot": ["snapshot/nfv-1/s1.xml"],
    "a managed save and 2 snapshots": ["save/nfv-1.save", "snapshot/nfv-1/s1.xml", "snapshot/nfv-1/s2.xml"],
    "": ["save/nfv-2.save", "snapshot/nfv-2/s1.xml", "snapshot/nfv-1/s1.xml.new"],
}


@pytest.mark.parametrize("saved", SAVES)
def test_what_comes_again_from_a_saved_state_is_taken_back_again(host: Host, saved: str) -> None:
    """Where libvirt keeps none, a pin like emupin's is the operator's own."""
    for path in SAVES[saved]:
        host.write(f"var/lib/libvirt/qemu/{path}", "")
    (done,) = take_back(host, means(host))
    assert (done.done, done.saved) == (True, saved)
    told = list(command._remarks({NAME: [done]}, True))
    assert [line.startswith(f"nfv-1: libvirt keeps {saved} of it, from which") for line in told] == [True] * bool(saved)
    assert take_back(host, means(host)) == []
    host.write(STORED, domain_xml(emulatorpin="2"))
    guest = start(host)
    again = take_back(host, means(host, guest))
    assert [each.where for each in again] == (["live XML", "persistent XML"] if saved else [])
    assert guest.allowed(MAIN) == ("2-5" if saved else "2")


def test_what_came_again_is_forgotten_with_the_last_saved_state(host: Host) -> None:
    """A managed save is gone once the guest has started from it."""
    save = host.write("var/lib/libvirt/qemu/save/nfv-1.save", "")
    take_back(host, means(host))
    save.unlink()
    guest = start(host)
    assert [each.where for each in take_back(host, means(host, guest))] == ["live XML"]
    assert former.recall(str(host.root), UUID) == {}


def test_a_pin_that_was_taken_out_is_put_back(host: Host) -> None:
    former.remember(str(host.root), UUID, "persistent", {"emulator": "2"}, {"emulator": None}, "")
    host.write(STORED, domain_xml(emulatorpin=None))
    seen = take_back(host, None)
    assert list(command._lines(NAME, seen, False))[1:] == ["  persistent XML: <emulatorpin> none -> 2-5"]
    put: list[object] = []
    assert [each.done for each in take_back(host, Means(print, lambda *pins: put.append(pins)))] == [True]
    assert put == [(UUID, "persistent", {"emulator": frozenset(range(2, 6))})]
    assert host.audit()[-1]["diff"] == ["+persistent emulator: 2-5"]


@pytest.mark.parametrize(("ours", "changes"), [("2", {"emulator": (None, "2")}), (None, {})])
def test_a_pin_that_libvirt_cannot_start_the_guest_with_stays_out(
    host: Host, ours: str | None, changes: dict[str, tuple[str | None, str]]
) -> None:
    former.remember(str(host.root), UUID, "persistent", {"emulator": "99"}, {"emulator": ours}, "")
    host.write(STORED, domain_xml(emulatorpin=ours))
    assert [each.changes for each in take_back(host, None)] == ([changes] if changes else [])


def test_what_was_not_put_back_is_said(host: Host) -> None:
    guest = start(host)
    done = take_back(host, means(host, guest, lambda kind: kind == "live"))
    assert list(command._lines(NAME, done, True)) == [
        "nfv-1: put back in part",
        "  live XML: <emulatorpin> 2 -> 2-5: failed",
        "  persistent XML: <emulatorpin> 2 -> 2-5",
    ]
    assert [each.error for each in done] == ["libvirt: does not answer", ""]
