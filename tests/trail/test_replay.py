"""Recorded decisions made again: all of a made-up year, those of the hook, and those that cannot be."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import year
from command import emupin
from hosts import PROJECT, domain_xml
from hosts import Host as HookHost

from emupin.base import cpuset
from emupin.base.jsonline import encode
from emupin.engine.plan import plan
from emupin.trail import recorded
from emupin.trail.archive import Archive, beside
from emupin.trail.form import DECISION, EVERY, is_decision
from emupin.trail.recorded import NEWER
from emupin.trail.replay import DIFFERENT, NO_DECISION, NOT_REPLAYABLE, SAME, replay
from emupin.trail.sources import find_trails

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emupin.base.errors import EmupinError
    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.engine.situation import Others
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy

ENTRIES = int(os.environ.get("EMUPIN_YEAR", "2000"))
"""100,000 for a whole year of a fleet."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return year.write_fleet(tmp_path_factory.mktemp("fleet"), 5, ENTRIES)


def refuse(error: EmupinError) -> None:
    pytest.fail(str(error))


def entries(fleet: Path) -> Iterator[tuple[dict[str, Any], Archive]]:
    for trail in find_trails([str(fleet)], ""):
        archive = trail.archive()
        for _, entry in trail.entries(refuse):
            assert entry
            yield entry, archive


def narrowed(guest: Domain, policy: Policy, host: Host | None, others: Others) -> Plan:
    """An engine with another rule: never more than one CPU."""
    made = plan(guest, policy, host, others)
    return made.replace(cpus=frozenset((min(made.cpus),))) if made.cpus else made


def is_wide(entry: dict[str, Any]) -> bool:
    after = entry.get("decided", entry).get("after")
    return bool(after and entry["placement"] not in (None, "keep") and len(cpuset.parse(after)) > 1)


def test_a_year_is_decided_the_same(fleet: Path) -> None:
    found = Counter(replay(entry, archive).status for entry, archive in entries(fleet))
    assert sum(found.values()) == ENTRIES
    assert found.keys() == {SAME, NO_DECISION}
    assert found[NO_DECISION] < ENTRIES / 20


def test_the_year_has_all_kinds_of_decisions(fleet: Path) -> None:
    everything = [entry for entry, _ in entries(fleet)]
    placements = {entry.get("placement") for entry in everything}
    assert {"vcpu:0", "pool", "dedicated", "dedicated:2", "keep", None} <= placements
    assert {entry["outcome"] for entry in everything} >= {"rewritten", "unchanged", "enforced", "refused", "failed"}
    assert sum(is_wide(entry) for entry in everything) > ENTRIES / 20
    assert any(entry.get("warnings") for entry in everything)


def test_a_changed_rule_is_seen_in_exactly_the_entries_that_differ(fleet: Path) -> None:
    for entry, archive in entries(fleet):
        found = replay(entry, archive, narrowed)
        if is_wide(entry):
            assert found.status == DIFFERENT
            (difference,) = found.differences
            assert difference.field == "after"
            assert difference.recorded == entry.get("decided", entry)["after"]
            assert difference.now == str(min(cpuset.parse(difference.recorded)))
        else:
            assert found.status in (SAME, NO_DECISION)


def decision(fleet: Path) -> tuple[dict[str, Any], Archive]:
    return next((entry, archive) for entry, archive in entries(fleet) if entry["outcome"] == "rewritten")


@pytest.mark.parametrize("key", ["rule", "placement", "after", "reason", "warnings"])
def test_whatever_else_is_on_record_is_a_difference(fleet: Path, key: str) -> None:
    entry, archive = decision(fleet)
    other: Any = ["made up"] if key == "warnings" else "made up"
    found = replay({**entry, key: other}, archive)
    assert [(each.field, each.recorded) for each in found.differences] == [(key, other)]


def test_an_entry_of_emupin_0_1_is_decided_again(fleet: Path) -> None:
    """Its facts have no number of their form; what it did not look at was not there."""
    entry, archive = decision(fleet)
    old = {key: value for key, value in entry["facts"].items() if key not in ("form", *NEWER)}
    old["others"] = {use: old["others"][use] for use in ("vcpus", "dedicated", "shared", "previous")}
    assert replay({**entry, "facts": old}, archive).status == SAME
    mixed = replay({**entry, "facts": {**old, "interrupts": ""}}, archive)
    assert (mixed.status, mixed.why.partition(":")[0]) == (NOT_REPLAYABLE, "entry")


@pytest.mark.parametrize("key", [*EVERY, *DECISION])
def test_a_decision_that_lacks_a_field_is_not_replayable(fleet: Path, key: str) -> None:
    for entry, archive in itertools.islice(entries(fleet), 60):
        if is_decision(entry):
            found = replay({name: entry[name] for name in entry if name != key}, archive)
            assert found.status in (NOT_REPLAYABLE, DIFFERENT), (key, entry)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("before", "9"),
        ("before", None),
        ("time", "soon"),
        ("host", ""),
        ("uuid", None),
        ("op", "made up"),
        ("outcome", "unchanged"),
        ("diff", []),
        ("diff", ["-    <emulatorpin cpuset='9'/>", "+    <emulatorpin cpuset='9'/>"]),
        ("diff", ["rubbish"]),
        ("sha256_before", "0" * 63),
        ("sha256_after", None),
    ],
)
def test_a_field_that_does_not_follow_from_the_others_is_no_same_decision(fleet: Path, key: str, value: Any) -> None:
    entry, archive = next((each, kept) for each, kept in entries(fleet) if each["diff"] and each["before"])
    assert replay({**entry, key: value}, archive).status in (NOT_REPLAYABLE, DIFFERENT)
    same = {**entry, "sha256_after": entry["sha256_before"]}
    assert [each.field for each in replay(same, archive).differences] == ["sha256_after"]


def test_dropped_facts_are_found_though_the_chain_was_made_anew(tmp_path: Path) -> None:
    path = year.write_host(tmp_path, 1, 40)
    previous, lines = None, []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["outcome"] == "rewritten":
            del entry["facts"]
        data = encode({**entry, "previous": previous}).encode() + b"\n"
        previous = hashlib.sha256(data).hexdigest()
        lines.append(data)
    path.write_bytes(b"".join(lines))
    (tmp_path / "var/lib/emupin/audit-head").write_text(f"{previous}\n")
    assert emupin(tmp_path, "audit", "verify").returncode == 0
    done = emupin(tmp_path, "audit", "replay")
    assert (done.returncode, b"not replayable: entry: lacks facts" in done.stdout) == (1, True)


def test_an_entry_without_one_of_its_facts_is_not_replayable(fleet: Path) -> None:
    entry, archive = decision(fleet)
    facts = entry["facts"]
    told_twice = {"online", "within"}  # The topology says it too.
    later = {"partition", "numad", "memory"}  # Earlier versions did not record it.
    for key in facts.keys() - told_twice - later:
        found = replay({**entry, "facts": {name: facts[name] for name in facts if name != key}}, archive)
        assert found.status == NOT_REPLAYABLE, key
        assert key in found.why


@pytest.mark.parametrize(
    "value", [None, True, 7, -1, 10**12, "x", "0-3,", [], ["x"], {}, {"0": 1}, {"x": "1"}, {"0": ""}]
)
def test_facts_of_whatever_shape_never_end_the_replay(fleet: Path, value: object) -> None:
    entry, archive = decision(fleet)
    for key in entry["facts"]:
        replay({**entry, "facts": {**entry["facts"], key: value}}, archive)
    for key in entry["facts"]["others"]:
        others = {**entry["facts"]["others"], key: value}
        replay({**entry, "facts": {**entry["facts"], "others": others}}, archive)
    for key in entry:
        replay({**entry, key: value}, archive)


def test_a_missing_and_an_altered_snapshot_are_told_apart(tmp_path: Path) -> None:
    path = year.write_host(tmp_path, 0, 20)
    entry = next(entry for entry, _ in entries(tmp_path) if "facts" in entry)
    kept = tmp_path / "var/lib/emupin/policies" / f"{entry['policy']}.yaml"
    kept.write_bytes(kept.read_bytes() + b"# another\n")
    assert "was changed since it was saved" in replay(entry, Archive(beside(str(path.parent)))).why
    kept.unlink()
    assert "is not saved in" in replay(entry, Archive(beside(str(path.parent)))).why


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "", None, 7, "A" * 64, "0" * 63])
def test_a_digest_is_never_a_path(fleet: Path, digest: object) -> None:
    entry, archive = decision(fleet)
    assert replay({**entry, "policy": digest}, archive).status == NOT_REPLAYABLE


REFUSING = """\
version: 1
defaults: {on_failure: refuse}
rules:
  - name: impossible
    match: {name: "bad-*"}
    placement: ["vcpu:7"]
  - name: nfv
    match: {name: "nfv-*", interface: [vhostuser, network], flavor: "*"}
    placement: ["cpus:3", "vcpu:0"]
  - name: rest
    placement: ["cpus:8-9"]
"""

DEVICES = (
    "  <metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>"
    "<nova:flavor name='nfv.large'/></nova:instance></metadata>\n"
    "  <devices><interface type='vhostuser'/></devices>\n"
)


def test_what_the_hook_decided_is_decided_the_same(tmp_path: Path) -> None:
    host = HookHost(tmp_path)
    host.set_policy(REFUSING)
    for name in ("nfv-1", "bad-1", "web-1"):
        for operation in ("prepare", "migrate", "restore", "started", "reconnect", "attach"):
            host.call(operation, domain_xml(name, extra=DEVICES if name == "nfv-1" else ""), name)
    host.set_policy("version: 1\nrules: []\nsurprise: 1\n")
    host.call("prepare", domain_xml("web-1"), "web-1")
    found = [(entry, replay(entry, Archive(beside(str(tmp_path / "var/log/emupin"))))) for entry in host.audit()]
    assert {replayed.status for _, replayed in found} == {SAME}, found
    assert len(found) == 19
    assert {entry["rule"] for entry, _ in found} == {"nfv", "impossible", "rest"}
    assert recorded.problems(found[-1][0]) == 1


def test_the_facts_are_the_whole_guest_and_all_others() -> None:
    made = year.MadeHost.make(1, 7)
    for _ in range(300):
        guest = made.guest()
        others = made.others(guest.uuid)
        entry = json.loads(encode(made.decide("prepare", guest, plan)))
        rebuilt, facts = recorded.guest(entry), guest.domain
        unseen = {} if "devices" in made.policy.sections() else {"interfaces": None}
        assert rebuilt == facts.replace(layout=rebuilt.layout, id=None, **unseen)
        assert recorded.others(entry) == others


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_counts(fleet: Path, tmp_path: Path) -> None:
    done = emupin(tmp_path, "audit", "replay", fleet)
    assert done.returncode == 0, done.stderr
    assert f"{ENTRIES:,} entries: ".encode() in done.stdout
    assert b" 0 differently, 0 not replayable" in done.stdout


def falsify(path: Path) -> dict[str, Any]:
    """Write another decision into the trail; its entry."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    entry: dict[str, Any] = next(each for each in lines if each["outcome"] == "rewritten")
    entry.update(after="15", emupin="0.0.9", name="nfv-\x1b[2J")
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return entry


def test_the_command_shows_a_difference_as_a_diff(tmp_path: Path) -> None:
    before = falsify(year.write_host(tmp_path, 1, 40))
    done = emupin(tmp_path, "audit", "replay")
    assert done.returncode == 1
    shown = done.stdout.decode()
    assert "decided by emupin 0.0.9, differs with" in shown
    assert "  - after: 15\n  + after: " in shown
    assert "\x1b" not in shown
    form = json.loads(emupin(tmp_path, "audit", "replay", "--json").stdout)
    assert form["counts"]["different"] == 1
    (entry,) = form["entries"]
    assert (entry["emupin"], entry["uuid"]) == ("0.0.9", before["uuid"])
    assert {"field": "after", "recorded": "15"}.items() <= entry["differences"][0].items()


def test_a_copied_trail_needs_its_state_named(tmp_path: Path) -> None:
    path = year.write_host(tmp_path / "host", 0, 30)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    alone = emupin(tmp_path, "audit", "replay", copy)
    assert alone.returncode == 1
    assert b"not replayable: the policy " in alone.stdout
    named = emupin(tmp_path, "audit", "replay", "--state", tmp_path / "host/var/lib/emupin", copy)
    assert named.returncode == 0, named.stdout


def test_no_trail_is_an_error(tmp_path: Path) -> None:
    done = emupin(tmp_path, "audit", "replay")
    assert done.returncode == 2
    assert b"there is no audit trail" in done.stderr
    assert emupin(tmp_path, "audit", "replay", tmp_path).returncode == 2


# -- trails of earlier versions ----------------------------------------------------------------------------------------

OLDER = PROJECT / "fixtures" / "trail"
"""By version: a trail as that version wrote it, with what it refers to."""


@pytest.mark.parametrize("version", ["0.1.0"])
def test_a_trail_of_an_earlier_version_is_whole_and_can_be_decided_again(version: str, tmp_path: Path) -> None:
    (trail,) = find_trails([str(OLDER / version)], "")
    assert trail.verdict.findings == ()
    found = Counter(replay(entry, trail.archive()).status for _, entry in trail.entries(refuse) if entry)
    assert found[NOT_REPLAYABLE] == 0
    assert found[SAME] > 30
    done = emupin(tmp_path, "audit", "list", OLDER / version / "audit.jsonl")
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 40, b"")
