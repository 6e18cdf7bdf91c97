"""What `apply --undo` takes back of a guest that is shut off, with a pretended libvirt; running ones: tests/real."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hosts import UUID, Host, domain_xml

from emupin.base.errors import RecordError
from emupin.live.undoing import Means, Undone, undo
from emupin.node import former
from emupin.trail.form import lacking

NAME, STORED = "nfv-1", "etc/libvirt/qemu/nfv-1.xml"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """emupin has recorded 2 where 2-5 stood."""
    host = Host(tmp_path)
    former.remember(str(tmp_path), UUID, "persistent", {"emulator": "2-5"}, {"emulator": "2"})
    host.write(STORED, domain_xml(emulatorpin="2"))
    return host


def take_back(host: Host, trouble: str = "", dry: bool = False) -> Undone:
    def put_back(uuid: str, kind: str, pins: Mapping[str, frozenset[int] | None]) -> None:
        if trouble:
            raise RecordError("libvirt", trouble)
        assert (uuid, kind, pins) == (UUID, "persistent", {"emulator": frozenset(range(2, 6))})
        host.write(STORED, domain_xml(emulatorpin="2-5"))

    def set_affinity(_tid: int, _cpus: frozenset[int]) -> None:
        pytest.fail("it does not run")

    (done,) = undo(str(host.root), [NAME], None if dry else Means(set_affinity, put_back))
    return done


def test_what_stood_there_before_is_put_back_once(host: Host) -> None:
    changes = {"persistent XML": {"emulator": ("2-5", "2")}}
    assert take_back(host, dry=True) == Undone(NAME, changes)
    assert take_back(host) == Undone(NAME, changes)
    assert take_back(host) == Undone(NAME)
    (entry,) = host.audit()
    assert (entry["op"], entry["before"], entry["after"]) == ("undo", "2", "2-5")
    assert lacking(entry) == ""


def test_trouble_forgets_nothing(host: Host) -> None:
    assert take_back(host, "does not answer").error == "libvirt: does not answer"
    assert take_back(host).error == ""


def test_a_pin_that_was_changed_since_stays(host: Host) -> None:
    host.write(STORED, domain_xml(emulatorpin="7"))
    assert take_back(host) == Undone(NAME)
    assert json.loads((host.root / "var/lib/emupin/former" / UUID).read_text())
