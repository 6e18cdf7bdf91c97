"""What is left to the recording process, and what need not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from decisions import policy
from hosts import domain_xml

from emupin.engine.plan import NOBODY, plan
from emupin.guest.domain import Status
from emupin.guest.domainxml import read
from emupin.order import is_recorded

NOVA = """\
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:flavor name='nfv'/></nova:instance>
  </metadata>
"""
RIGHT = domain_xml(emulatorpin="2", extra=NOVA)
FOLLOWS = RIGHT.replace("</cputune>", "<iothreadpin iothread='1' cpuset='2'/></cputune>").replace(
    "  <cputune>", "  <iothreads>1</iothreads>\n  <cputune>"
)
SWAPPED = RIGHT.replace("vcpu='0'", "vcpu='x'").replace("vcpu='1'", "vcpu='0'").replace("'x'", "'1'")


def is_done(
    root: Path,
    live: str,
    stored: str | None,
    rule: str = "match: {flavor: nfv}",
    state: tuple[str, str] = ("running", "booted"),
) -> bool:
    """Whether nothing is to be recorded for a guest that runs; it is transient where nothing is `stored`."""
    rules = policy('"vcpu:0"', rule)
    folder = root / "etc/libvirt/qemu"
    folder.mkdir(parents=True, exist_ok=True)
    if stored is not None:
        (folder / "nfv-1.xml").write_text(stored)
    guest = read(live.encode(), "live", rules.sections())
    status = Status(4242, state[0], {}, read(live.encode(), "status", frozenset()), state[1])
    return is_recorded(str(root), plan(guest, rules, None, NOBODY), guest, status, rules)


@pytest.mark.parametrize("stored", [None, RIGHT, RIGHT.replace(" id='7'", ""), f"<!-- libvirt's -->\n{RIGHT}"])
def test_nothing_is_ordered_where_both_definitions_say_so_already(tmp_path: Path, stored: str | None) -> None:
    assert is_done(tmp_path, RIGHT, stored)


@pytest.mark.parametrize(
    ("live", "stored"),
    [
        (domain_xml(extra=NOVA), RIGHT),
        (domain_xml(emulatorpin=None, extra=NOVA), None),
        (RIGHT, domain_xml(extra=NOVA)),
        (RIGHT, domain_xml(emulatorpin=None, extra=NOVA)),
        (RIGHT, SWAPPED),
        (RIGHT, RIGHT.replace("name='nfv'", "name='web'")),
        (RIGHT, RIGHT.replace("<vcpu placement='static'>4", "<vcpu placement='static'>5")),
        (RIGHT, "not XML"),
        (RIGHT, ""),
    ],
    ids=["live", "transient", "stored", "unpinned", "swapped", "other rule", "other vCPUs", "unreadable", "empty"],
)
def test_it_is_ordered_where_one_does_not_or_may_have_another_plan(
    tmp_path: Path, live: str, stored: str | None
) -> None:
    assert not is_done(tmp_path, live, stored)


def test_a_partition_that_libvirt_adds_at_the_start_is_no_difference(tmp_path: Path) -> None:
    live = RIGHT.replace("  <os>", "  <resource>\n    <partition>/machine</partition>\n  </resource>\n  <os>")
    assert is_done(tmp_path / "a", live, RIGHT)
    assert not is_done(tmp_path / "b", live.replace("/machine", "/machine/rt"), RIGHT)


def test_the_persistent_definition_counts_only_where_it_is_to_be_seen_to(tmp_path: Path) -> None:
    assert is_done(tmp_path, RIGHT, domain_xml(extra=NOVA), "persist: false")


def test_iothreads_that_follow_count(tmp_path: Path) -> None:
    assert is_done(tmp_path / "a", FOLLOWS, FOLLOWS, "iothreads: follow")
    assert not is_done(
        tmp_path / "b", FOLLOWS.replace("thread='1' cpuset='2'", "thread='1' cpuset='3'"), FOLLOWS, "iothreads: follow"
    )


def test_a_definition_that_cannot_be_read_is_seen_to(tmp_path: Path) -> None:
    (tmp_path / "etc/libvirt/qemu/nfv-1.xml").mkdir(parents=True)
    assert not is_done(tmp_path / ".", RIGHT, None)


@pytest.mark.parametrize("stored", [None, RIGHT])
@pytest.mark.parametrize(
    ("state", "done"),
    [(("paused", "user"), True), (("paused", "migration"), False), (("paused", "starting up"), False)],
)
def test_what_comes_in_may_bring_another_definition_once_it_is_here(
    tmp_path: Path, stored: str | None, state: tuple[str, str], done: bool
) -> None:
    assert is_done(tmp_path, RIGHT, stored, state=state) == done
