"""Guests that start one after the other on one host, and what the guests that run there already have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import emupin, make_root
from decisions import ANOTHER, THIRD, UUID, GuestXml, host, pins, policy

from emupin.engine.plan import plan
from emupin.engine.situation import Others
from emupin.fleet.together import Capacity, Company, Room, lines
from emupin.fleet.trial import differ, line
from emupin.live.facts import Facts

SMT = host("xeon-2x32-smt")
"""Siblings are n and n + 64; node 0 is 0-31 and 64-95, node 1 is 32-63 and 96-127."""
A, B, C = (GuestXml(pins(10 + at), name=f"nfv-{at}", uuid=uuid) for at, uuid in enumerate((UUID, ANOTHER, THIRD)))
RULES = 'version: 1\nhost: {pool: "6-7"}\nrules:\n  - {name: nfv, placement: [dedicated, "vcpu:0"]}\n'


def company(
    pool: str = "2-5,34-35", held: Others | None = None, placement: str = "dedicated", rule: str = ""
) -> Company:
    return Company(policy(placement, rule, pool=pool), Facts(SMT, held or Others()))


def placed(guests: Company, *which: GuestXml) -> list[list[int]]:
    return [sorted(guests.decide(each.domain, each.name).cpus or ()) for each in which]


def test_each_gets_a_cpu_of_its_own() -> None:
    guests = company()
    assert placed(guests, A, B, C) == [[2], [3], [4]]
    assert placed(guests, A) == [[2]], "the same guest again keeps what it has"


def test_what_runs_there_counts_but_for_the_guest_itself() -> None:
    held = Others(dedicated={"77aa": frozenset((2,)), UUID: frozenset((5,))}, vcpus={"77aa": frozenset((3,))})
    assert placed(company(held=held), B, A) == [[4], [5]]


def test_who_started_is_called_by_name_beside_those_that_ran() -> None:
    guests = company(held=Others(dedicated={"77aa": frozenset((2,))}, names={"77aa": "old"}))
    placed(guests, A)
    assert guests.others(B.domain, "").names == guests.everybody().names == {"77aa": "old", UUID: "nfv-0"}


def test_what_starts_counts_with_its_vcpus_iothreads_and_pins() -> None:
    guests = company(placement="keep")
    placed(guests, replace(A, pins=pins(2, "3-4"), emulatorpin="5", iothreads={1: "34"}))
    others = guests.others(B.domain, "")
    assert others.vcpus == {UUID: frozenset((2,))}
    assert others.floating == {UUID: frozenset((3, 4))}
    assert others.shared == {UUID: frozenset((5,))}
    assert others.iothreads == {UUID: frozenset((34,))}


def test_who_is_not_pinned_itself_is_where_its_vcpus_may_be() -> None:
    """libvirt falls back on <vcpu cpuset>, for a guest that no rule takes too: that is not the pool's to give."""
    guests = company(placement="keep")
    placed(guests, replace(A, pins={}, vcpus=2, vcpu_attributes="cpuset='2-5'"))
    assert guests.others(B.domain, "").shared == {UUID: frozenset((2, 3, 4, 5))}


def test_vhost_workers_have_what_they_are_given() -> None:
    guests = company("2-4", rule="vhost: [dedicated]")
    first, second = (guests.decide(each.domain, each.name) for each in (A, B))
    assert (first.alone, second.alone) == (frozenset((2, 3)), frozenset((4,)))
    assert guests.everybody().dedicated == {UUID: frozenset((2, 3)), ANOTHER: frozenset((4,))}
    old, new = (policy('"cpus:2"', f'vhost: "cpus:{cpus}"') for cpus in (3, 4))
    was, now = (plan(A.domain, each, SMT) for each in (old, new))
    assert differ(A.domain, was, now)
    assert "cpus:2: no pin -> 2 (vhost: 3 -> 4)" in line(A.domain, "a.xml", was, now)


def test_iothreads_that_follow_are_where_the_emulator_goes() -> None:
    guests = company(rule="iothreads: follow")
    placed(guests, replace(A, iothreads={1: "34"}))
    assert guests.others(B.domain, "").iothreads == {UUID: frozenset((2,))}


@pytest.mark.parametrize(("on_failure", "there"), [("start", True), ("refuse", False)])
def test_who_is_refused_is_not_there(on_failure: str, there: bool) -> None:
    guests = company("10", rule=f"on_failure: {on_failure}")
    assert placed(guests, A) == [[]]
    assert (UUID in guests.others(B.domain, "").vcpus) is there


def test_capacity() -> None:
    guests = company()
    placed(guests, A, B)
    assert guests.capacity() == Capacity(
        pool=frozenset((2, 3, 4, 5, 34, 35)),
        alone=frozenset((2, 3)),
        free={"0": frozenset((4, 5)), "1": frozenset((34, 35))},
        rooms=(Room("nfv", "nfv-1", 4),),
        ran_out="",
    )
    assert guests.capacity() == guests.capacity(), "asking changes nothing"
    assert lines(guests.capacity()) == [
        "of the pool 2-5,34-35: 2 of 6 CPUs held by one guest alone, free: CPUs 4-5 on node 0; CPUs 34-35 on node 1",
        "rule nfv: 4 more guests like nfv-1 would get CPUs of their own",
    ]


def test_where_the_pool_runs_out() -> None:
    guests = company("2-3", placement='dedicated, "vcpu:0"')
    assert placed(guests, A, B, C) == [[2], [3], [12]]
    why = f"all 2 CPUs of the pool are held, by guests nfv-0 ({UUID}) and nfv-1 ({ANOTHER})"
    assert guests.capacity().ran_out == f"nfv-2: dedicated: {why}"
    assert guests.capacity().rooms == (Room("nfv", "nfv-2", 0),)


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root", policy=RULES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three guests on CPUs 2 to 4 of a host of eight."""
    folder = tmp_path / "guests"
    folder.mkdir()
    for at, each in enumerate((A, B, C)):
        (folder / f"{at}.xml").write_text(replace(each, pins=pins(2 + at)).text)
    return folder


def test_policy_test_alone_and_together(root: Path, folder: Path) -> None:
    alone = emupin(root, "policy", "test", folder)
    assert alone.stdout.count(b"dedicated: no pin -> 6") == 3
    together = emupin(root, "policy", "test", "--together", folder).stdout.decode().splitlines()
    assert [line.partition("-> ")[2][:1] for line in together] == ["6", "7", "4"]
    told = emupin(root, "policy", "test", "--together", "--json", folder)
    *guests, last = [json.loads(line) for line in told.stdout.splitlines()]
    assert [each["after"] for each in guests] == ["6", "7", "4"]
    why = f"all 2 CPUs of the pool are held, by guests nfv-0 ({UUID}) and nfv-1 ({ANOTHER})"
    assert last["capacity"] == {
        "pool": "6-7", "held_alone": "6-7", "free": {},
        "more": [{"rule": "nfv", "like": "nfv-2", "guests": 0}],
        "ran_out": f"{folder}/2.xml: dedicated: {why}",
    }  # fmt: skip
    assert b"the pool runs out at " in told.stderr


def test_rewrite_together_in_place(root: Path, folder: Path) -> None:
    done = emupin(root, "rewrite", "--together", "--in-place", folder)
    assert done.returncode == 0
    assert b"rule nfv: 0 more guests like nfv-2 would get CPUs of their own" in done.stderr
    assert [f"<emulatorpin cpuset='{cpu}'/>" in (folder / f"{at}.xml").read_text() for at, cpu in enumerate("674")]


def test_rewrite_warns_of_a_guest_that_no_rule_takes(root: Path, tmp_path: Path) -> None:
    """It comes to a CPU that was given to the first one alone."""
    folder, names = tmp_path / "two", (("nfv-1", "10"), ("web-1", "6"))
    folder.mkdir()
    for number, (name, cpu) in enumerate(names):
        (folder / f"{number}.xml").write_text(GuestXml({0: cpu}, name=name, uuid=(UUID, ANOTHER)[number]).text)
    rules = RULES.replace("{name: nfv,", "{name: nfv, match: {name: 'nfv-*'},")
    (folder / "policy.yaml").write_text(rules)
    done = emupin(root, "rewrite", "--together", "--check", "--policy", folder / "policy.yaml", folder)
    assert (done.returncode, done.stdout.decode()) == (1, f"{folder}/0.xml\n")
    assert b"1.xml: CPU 6 runs a vCPU of this guest, and has the emulator threads of guest nfv-1" in done.stderr


def test_rewrite_sees_the_guests_that_explain_sees(root: Path, folder: Path) -> None:
    """A running guest holds the first CPU of the pool, here and on a recorded host."""
    running = root / "run/libvirt/qemu"
    running.mkdir(parents=True)
    (running / "nfv-0.xml").write_text(replace(A, pins=pins(2), emulatorpin="6").status)
    form = {"emupin_host": 1, "online": "0-7", "isolated": "", "nohz_full": "", "nodes": {}, "cores": [], "l3": []}
    recorded = folder / "host.json"
    recorded.write_text(json.dumps({**form, "held": {"dedicated": {UUID: "6"}}}))
    for where in ((), ("--host", recorded)):
        told = json.loads(emupin(root, "explain", folder / "1.xml", "--json", *where).stdout)
        assert told["result"]["after"] == "7"
        assert b"<emulatorpin cpuset='7'/>" in emupin(root, "rewrite", folder / "1.xml", *where).stdout
        own = emupin(root, "rewrite", folder / "0.xml", *where).stdout
        assert b"<emulatorpin cpuset='6'/>" in own, "what a guest itself has is no obstacle"


def test_the_page_shows_all_guests_in_each_picture(root: Path, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert emupin(root, "rewrite", "--together", "--diff", "--report", page, folder).returncode == 0
    text = page.read_text()
    assert "as they start one after the other on one host" in text
    assert "<li>rule nfv: 0 more guests like nfv-2 would get CPUs of their own</li>" in text
    others = {"vcpus": {ANOTHER: "3", THIRD: "4"}, "dedicated": {ANOTHER: "7"}, "shared": {THIRD: "4"}}
    assert json.dumps(others, separators=(",", ":")) in text
