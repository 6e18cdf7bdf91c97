"""`emupin explain`: goldens on recorded hosts, guests that are named, and what must not get through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import automatic, emupin, make_root
from hosts import UUID, domain_xml

from emupin.engine import snapshot
from emupin.engine.checks import CHECKS
from emupin.engine.explanation import explain
from emupin.engine.host import Host
from emupin.engine.plan import plan
from emupin.engine.situation import Others, Situation
from emupin.grammar.policyfile import compile_policy
from emupin.guest import domainxml
from emupin.live.facts import read_facts
from emupin.screen.explanationtext import render

if TYPE_CHECKING:
    from conftest import Golden

    from emupin.policy.values import Policy

PROJECT = Path(__file__).resolve().parents[2]
GOLDENS = Path(__file__).parent / "explanations"
POLICY = GOLDENS / "policy.yaml"
DEMO = "6f3c1a52-8d0b-4e7f-9a41-2c5d7e9b1f03"

CASES = [
    ("demo", "xeon-2x32-smt"),
    ("demo", "xeon-2x16-offline-isolated"),
    ("demo", "none"),
    ("nova-1.1-pinned", "epyc-2x64-smt"),
    ("nova-1.1-pinned", "altra-1x80"),
    ("nova-iothreads", "xeon-2x32-no-smt"),
    ("nova-realtime", "xeon-2x32-snc2"),
    ("nova-floating", "epyc-1x64-smt"),
]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root", policy=POLICY.read_text())


def host_file(name: str) -> str:
    return name if name == "none" else f"fixtures/host/{name}.json"


def compiled(text: str) -> Policy:
    return compile_policy(text.encode(), "policy.yaml")


@pytest.mark.parametrize(("guest", "host"), CASES)
def test_explanation(golden: Golden, root: Path, guest: str, host: str) -> None:
    done = emupin(root, "explain", f"fixtures/xml/{guest}.xml", "--host", host_file(host), cwd=PROJECT)
    assert (done.returncode, b"\x1b" in done.stdout) == (0, False)
    assert max(len(line) for line in done.stdout.decode().splitlines()) <= 80
    golden(GOLDENS / f"{guest}-on-{host}.txt", done.stdout)


def with_held(tmp_path: Path) -> Path:
    """A 256-CPU host whose pool other guests hold, all but one CPU that the guest itself has."""
    held = {"vcpus": {DEMO: "2-5", "77aa0011-0000": "100"}, "dedicated": {"5a3f1d2c-0000": "6-8", DEMO: "9"}}
    form = json.loads((PROJECT / "fixtures/host/epyc-2x64-smt.json").read_text())
    path = tmp_path / "host.json"
    path.write_text(json.dumps({**form, "held": held}))
    return path


def test_what_a_recorded_host_holds_is_a_fact_but_for_the_guest_itself(
    golden: Golden, root: Path, tmp_path: Path
) -> None:
    done = emupin(root, "explain", "fixtures/xml/demo.xml", "--host", with_held(tmp_path), cwd=PROJECT)
    assert max(len(line) for line in done.stdout.decode().splitlines()) <= 80
    golden(GOLDENS / "demo-on-held.txt", done.stdout)


def test_json(root: Path, tmp_path: Path) -> None:
    done = emupin(root, "explain", "fixtures/xml/demo.xml", "--host", with_held(tmp_path), "--json", cwd=PROJECT)
    told: dict[str, Any] = json.loads(done.stdout)
    assert set(told) == {"source", "guest", "policy", "rules", "placements", "result", "cpus"}
    assert told["guest"]["vcpus"] == {"0": "2", "1": "3", "2": "4", "3": "5"}
    assert [rule["outcome"] for rule in told["rules"]] == [
        "does not match", "does not match", "takes the guest", "not asked", "not asked",
    ]  # fmt: skip
    tried = [(each["placement"], each["auto"], each["outcome"], each["cpus"]) for each in told["placements"]]
    assert tried == [
        ("cpus:3-4", False, "skipped", "3-4"),
        ("dedicated", True, "taken", "9"),
        ("vcpu:0", True, "not tried", None),
        ("pool", False, "not tried", None),
    ]
    assert [check["check"] for check in told["placements"][0]["checks"]] == list(CHECKS)
    assert (told["result"]["before"], told["result"]["after"], told["result"]["dedicated"]) == ("2-5", "9", True)
    assert len(told["cpus"]) == 256
    assert told["cpus"][6]["dedicated"] == ["5a3f1d2c-0000"]
    assert [cpu["cpu"] for cpu in told["cpus"] if cpu["after"]] == [9]


# -- guests of this machine -------------------------------------------------------------------------------------------


def run_guest(root: Path, name: str = "nfv-1", uuid: str = UUID, xml: str | None = None) -> None:
    folder = root / "run/libvirt/qemu"
    folder.mkdir(parents=True, exist_ok=True)
    live = xml or domain_xml(name, uuid=uuid)
    (folder / f"{name}.xml").write_text(f"<domstatus state='running' pid='4242'>\n{live}</domstatus>\n")


def define_guest(root: Path, name: str, uuid: str) -> None:
    folder = root / "etc/libvirt/qemu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.xml").write_text(domain_xml(name, None, uuid))


OTHER = "0c1d2e3f-4051-4273-8495-a6b7c8d9eaf0"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("nfv-1", ("nfv-1", "2-5")),
        (UUID, ("nfv-1", "2-5")),
        (UUID.replace("-", "").upper(), ("nfv-1", "2-5")),
        ("nfv-2", ("nfv-2", None)),
        (OTHER, ("nfv-2", None)),
    ],
)
def test_a_guest_that_runs_or_is_defined(root: Path, argument: str, expected: tuple[str, str | None]) -> None:
    run_guest(root)
    define_guest(root, "nfv-1", UUID)
    define_guest(root, "nfv-2", OTHER)
    done = emupin(root, "explain", argument, "--json")
    guest = json.loads(done.stdout)["guest"]
    assert (guest["name"], guest["emulatorpin"]) == expected


def test_a_guest_that_nobody_knows(root: Path) -> None:
    run_guest(root, "router-1")
    define_guest(root, "nfv-2", OTHER)
    done = emupin(root, "explain", "ruoter-1")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        "ruoter-1: no such file, nor a guest of that name or UUID among 2 guests; did you mean 'router-1'?\n"
    )


def test_a_file_that_is_not_there(root: Path) -> None:
    done = emupin(root, "explain", "./guest.xml")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"./guest.xml: cannot be read: No such file or directory; ")


def test_a_guest_that_waits_for_numad_is_told_so(root: Path) -> None:
    (root / "etc/emupin/policy.yaml").write_text('version: 1\nrules:\n  - {name: all, placement: "vcpu:0"}\n')
    told = emupin(root, "explain", "-", data=automatic()).stdout.decode()
    later = "emulator threads later numad has not chosen the CPUs of its vCPUs yet: decided when it has started before"
    assert later in " ".join(told.split())
    assert "failed" not in told


def test_no_rule_is_asked_about_a_guest_of_another_driver(root: Path) -> None:
    """Its name alone would have a rule take it."""
    xml = domain_xml("demo-1").replace("'kvm'", "'lxc'").encode()
    told = json.loads(emupin(root, "explain", "-", "--json", data=xml).stdout)
    assert {rule["outcome"] for rule in told["rules"]} == {"not asked"}
    assert (len(told["rules"]), told["placements"], told["result"]["rule"]) == (5, [], None)
    text = emupin(root, "explain", "-", data=xml).stdout.decode()
    assert "rules\n  (end)  type 'lxc' is none of the QEMU driver's: the hook is not called for it\n" in text
    assert "placements of" not in text


def test_stdin(root: Path) -> None:
    done = emupin(root, "explain", "-", "--json", data=domain_xml("demo-1").encode())
    assert json.loads(done.stdout)["result"]["rule"] == "later"


def test_another_guest_s_claim_counts_and_the_ledger_stays_as_it_is(root: Path) -> None:
    """The pool has one CPU that is online; the running guest was given it, so nothing is left for the other."""
    policy = root / "etc/emupin/policy.yaml"
    policy.write_text('version: 1\nhost: {pool: "7"}\nrules:\n  - {name: all, match: {}, placement: dedicated}\n')
    run_guest(root, "nfv-1", UUID, domain_xml("nfv-1", "7"))
    define_guest(root, "nfv-2", OTHER)
    done = emupin(root, "explain", "nfv-2", "--json")
    assert json.loads(done.stdout)["placements"][0]["problem"] == (
        f"the only CPU, 7, of the pool is held, by guest nfv-1 ({UUID})"
    )
    assert json.loads(emupin(root, "explain", "nfv-1", "--json").stdout)["result"]["after"] == "7"
    assert not (root / "run/emupin").exists()


def test_a_guest_that_cannot_be_looked_at_is_named(root: Path) -> None:
    run_guest(root, "broken", xml="<domain")
    done = emupin(root, "explain", "-", data=domain_xml("demo-1").encode())
    assert done.returncode == 0
    assert done.stderr.startswith(b"guest broken is judged by its threads alone: ")


def test_a_guest_from_elsewhere_is_told_so(root: Path) -> None:
    done = emupin(root, "explain", "fixtures/xml/nova-1.1-pinned.xml", cwd=PROJECT)
    assert done.returncode == 0
    assert (
        b"use --host with a snapshot of the host it runs on, or skip what needs a host with --host none" in done.stderr
    )
    given = emupin(
        root, "explain", "fixtures/xml/nova-1.1-pinned.xml", "--host", "fixtures/host/vm-2.json", cwd=PROJECT
    )
    assert b"which fixtures/host/vm-2.json does not have online: use --host with a snapshot of" in given.stderr


# -- what a guest is called -------------------------------------------------------------------------------------------


def test_a_name_with_control_characters_is_escaped(root: Path) -> None:
    xml = domain_xml("demo-&#x9b;31m\u202e&#10;x")
    done = emupin(root, "explain", "-", data=xml.encode())
    assert done.stdout.decode().startswith("guest  demo-\\x9b31m\\u202e\\nx\n")


def test_long_names_and_lists_stay_within_the_width() -> None:
    rule, cpus = "a-rule-with-a-very-long-name-" * 4, ",".join(str(cpu) for cpu in range(0, 200, 2))
    policy = compiled(
        f'version: 1\nrules:\n  - {{name: "not-{rule}", match: {{name: x}}, placement: keep}}\n'
        f'  - {{name: "{rule}", match: {{}}, placement: ["cpus:{cpus}"], checks: {{vcpu_overlap: warn}}}}\n'
    )
    guest = domainxml.read(domain_xml("n" * 200).encode(), "test")
    host = snapshot.load(str(PROJECT / "fixtures/host/epyc-2x64-smt.json"))
    for width in (80, 120):
        text = render(explain(guest, policy, host), "f" * 300, width, False)
        assert max(map(len, text.splitlines())) <= width


def test_colour_changes_no_character() -> None:
    import re

    guest = domainxml.read((PROJECT / "fixtures/xml/demo.xml").read_bytes(), "demo.xml")
    host = snapshot.load(str(PROJECT / "fixtures/host/xeon-2x32-smt.json"))
    told = explain(guest, compiled(POLICY.read_text()), host)
    coloured = render(told, "demo.xml", 80, True)
    assert "\x1b[31m  cpus:3-4" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == render(told, "demo.xml", 80, False)


# -- one decision -----------------------------------------------------------------------------------------------------


def test_the_explanation_is_that_of_the_plan() -> None:
    policy = compiled(POLICY.read_text())
    for host in (None, Host(online=frozenset(range(16)))):
        for path in sorted((PROJECT / "fixtures/xml").glob("*.xml")):
            guest = domainxml.read(path.read_bytes(), path.name)
            told, decided = explain(guest, policy, host), plan(guest, policy, host)
            assert told.plan == decided
            assert [each.problem for each in told.tried if each.outcome != "not tried"] == [
                attempt.problem for attempt in decided.attempts
            ]


def test_checks_that_need_a_host_pass_without_one_and_the_others_do_not_ask_for_it() -> None:
    guest = domainxml.read(domain_xml().encode(), "test")
    policy = compiled('version: 1\nrules:\n  - {name: all, match: {}, placement: "cpus:2-5,99"}\n')
    rule = policy.rules[0].replace(checks=dict.fromkeys(CHECKS, "warn"))
    host = Host(
        online=frozenset(range(8)),
        isolated=frozenset((2,)),
        nodes={0: frozenset(range(4)), 1: frozenset(range(4, 8))},
        cores=(frozenset((1, 2)),),
        partitions={"/machine": frozenset(range(7))},
        interrupts=frozenset((5,)),
    )
    complaining = {
        "online": frozenset((99,)), "confined": frozenset((7,)), "numa": frozenset((6,)),
        "isolated": frozenset((2, 6)), "smt": frozenset((1,)), "interrupts": frozenset((5,)),
    }  # fmt: skip
    assert set(complaining) == {name for name, check in CHECKS.items() if check.needs_host}
    two = guest.replace(vcpupins={0: frozenset((2,))}, vcpus=1)
    for name, cpus in complaining.items():
        assert CHECKS[name].complain(cpus, Situation(two, policy, rule, host, Others()))
        assert CHECKS[name].complain(cpus, Situation(two, policy, rule, None, Others())) is None


def test_no_host_means_no_facts_of_this_machine() -> None:
    facts = read_facts("none", compiled("version: 1\nrules: []\n"))
    assert (facts.host, facts.ledger, facts.held) == (None, None, Others())
