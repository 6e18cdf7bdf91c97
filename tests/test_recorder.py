"""The recording process: with a pretended libvirt for what a real one does rarely or slowly.

What a real libvirtd does is shown in `tests/real`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from decisions import policy, policy_text
from hosts import PROJECT, UUID, FakeGuest, FakeThread, domain_xml, python
from hosts import Host as HookHost

from emupin import order as orders
from emupin import recorder, recording
from emupin.base.errors import BusyError, EmupinError, RecordError
from emupin.engine.definition import NO_MORE
from emupin.node import former, libvirtd
from emupin.node.claims import Ledger
from emupin.order import Order
from emupin.policy.values import Policy
from emupin.recording import record_audited

RUNNING, PAUSED, MIGRATION, STARTING = 1, 3, 2, 11
LIVE, CONFIG, INACTIVE = 1, 2, 2
NO_DOMAIN, INVALID, TIMED_OUT, UNSUPPORTED, INTERNAL, LOST = 42, 55, 68, 84, 1, 38
RPC = 7
"""The part of libvirt that says LOST."""
BACKUP = 9


OTHER = "00000000-0000-0000-0000-00000000000b"


class FakeError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code

    def get_error_domain(self) -> int:
        return RPC if self.code == LOST else 0

    def get_error_code(self) -> int:
        return self.code


@dataclass
class FakeDomain:
    """A pretended guest: the states it goes through, and what its definitions say."""

    states: list[tuple[int, int]] = field(default_factory=lambda: [(RUNNING, 0)])
    persistent: bool = True
    number: int = 7
    pins: dict[int, str | None] = field(default_factory=lambda: {LIVE: "2-5", CONFIG: "2-5"})
    errors: list[int] = field(default_factory=list)
    """What comes of each call in turn; 0 is none."""
    calls: list[int] = field(default_factory=list)
    job: int = 0
    """libvirt's type of the job that somebody has on it."""
    operation: int = 0
    """What that job does."""
    control: int = 0
    """libvirt's word for what keeps QEMU busy."""
    refusals: list[int] = field(default_factory=list)
    """The errors that come, one a time, when somebody asks for the job."""
    stored: str = ""
    """The persistent definition, but for its pin; that of the live one where it is empty."""

    def state(self) -> tuple[int, int]:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def connect(self) -> FakeDomain:
        return self

    def listAllDomains(self) -> list[FakeDomain]:  # noqa: N802
        return [self]

    def UUIDString(self) -> str:  # noqa: N802
        return UUID

    def controlInfo(self) -> list[int]:  # noqa: N802
        return [self.control]

    def jobInfo(self) -> list[int]:  # noqa: N802
        if self.refusals:
            raise FakeError(self.refusals.pop(0))
        return [self.job]

    def jobStats(self) -> dict[str, int]:  # noqa: N802
        return {"type": self.job, "operation": self.operation}

    def ID(self) -> int:  # noqa: N802
        return self.number

    def isPersistent(self) -> bool:  # noqa: N802
        return self.persistent

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        kind = CONFIG if flags & INACTIVE else LIVE
        if kind == CONFIG and self.stored:
            return self.stored.replace("<emulatorpin cpuset='2-5'/>", f"<emulatorpin cpuset='{self.pins[kind]}'/>")
        return domain_xml(emulatorpin=self.pins[kind])

    def defineXML(self, text: str) -> None:  # noqa: N802
        found = re.search("<emulatorpin cpuset='(.*?)'/>", text)
        self.pins[CONFIG], self.stored = found and found[1], self.stored and text

    def pinIOThread(self, number: int, cpus: tuple[bool, ...], _flags: int) -> None:  # noqa: N802
        listed = ",".join(str(cpu) for cpu, on in enumerate(cpus) if on)
        self.stored = re.sub(f"(iothread='{number}' cpuset=')[^']*", rf"\g<1>{listed}", self.stored)

    def pinEmulator(self, cpus: tuple[bool, ...], flags: int) -> None:  # noqa: N802
        if self.errors and (error := self.errors.pop(0)):
            raise FakeError(error)
        self.calls.append(flags)
        self.pins[flags] = ",".join(str(cpu) for cpu, on in enumerate(cpus) if on)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDomain:
    """A guest that the pretended libvirt knows, and no other; its host has sixteen CPUs."""
    guest = FakeDomain()
    HookHost(tmp_path)

    class Connection:
        def lookupByUUIDString(self, uuid: str) -> FakeDomain:  # noqa: N802
            if uuid != UUID:
                raise FakeError(NO_DOMAIN)
            return guest

    fake = ModuleType("libvirt")
    for name, value in {
        "libvirtError": FakeError, "open": lambda _uri: Connection(), "registerErrorHandler": lambda *_: None,
        "VIR_ERR_NO_DOMAIN": NO_DOMAIN, "VIR_ERR_OPERATION_INVALID": INVALID, "VIR_ERR_OPERATION_TIMEOUT": TIMED_OUT,
        "VIR_ERR_OPERATION_UNSUPPORTED": UNSUPPORTED, "VIR_FROM_RPC": RPC,
        "VIR_DOMAIN_PAUSED": PAUSED, "VIR_DOMAIN_PAUSED_MIGRATION": MIGRATION,
        "VIR_DOMAIN_PAUSED_STARTING_UP": STARTING, "VIR_DOMAIN_SHUTOFF": 5, "VIR_DOMAIN_JOB_NONE": 0,
        "VIR_DOMAIN_JOB_OPERATION_BACKUP": BACKUP,
        "VIR_DOMAIN_CONTROL_OK": 0,
        "VIR_DOMAIN_XML_INACTIVE": INACTIVE, "VIR_DOMAIN_XML_SECURE": 1,
        "VIR_DOMAIN_AFFECT_LIVE": LIVE, "VIR_DOMAIN_AFFECT_CONFIG": CONFIG,
    }.items():  # fmt: skip
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(recorder, "stamp", lambda _path: recorder.STAMP)  # Somebody may be editing the file.
    monkeypatch.setattr(recorder, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(recorder, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 0.0)
    return guest


RULES = policy('"vcpu:0"')
"""The persistent definition has a plan of its own."""


def record(root: Path, order: Order, policy: Policy = RULES) -> dict[str, recording.Recorded]:
    done: dict[str, recording.Recorded] = {}
    recording.record(str(root), order, policy, done)
    return done


def serve(root: Path, *ordered: Order) -> list[str]:
    """Have a recording process carry out what is `ordered`; the outcomes in the trail."""
    for one in ordered:
        orders.leave(str(root), "nfv-1", one)
    recorder.serve(str(root))
    assert os.listdir(root / "run/emupin/orders") == []
    return [str(entry["outcome"]) for entry in HookHost(root).audit()]


def order(uuid: str = UUID, persist: bool = True) -> Order:
    return Order(uuid, "7", frozenset({2}), persist, False, "nfv", "vcpu:0", "digest")


def test_both_definitions_are_pinned_by_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    assert list(record(tmp_path, order())) == ["live", "persistent"]
    assert guest.pins == {LIVE: "2", CONFIG: "2"}
    assert record(tmp_path, order()) == {}, "a second time changes nothing"


QEMU, WORKER = 4242, 4280


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGuest:
    """Where libvirt's call has narrowed the cgroup that vhost workers share with the emulator threads."""
    threads = {
        QEMU: FakeThread("qemu-system-x86", {2}, "emulator"),
        WORKER: FakeThread("vhost-4242", {2}, "emulator"),
    }
    node = FakeGuest(HookHost(tmp_path), "v2", threads, "/machine/qemu-7-nfv-1.libvirt-qemu", cpusets={"emulator": {2}})
    monkeypatch.setattr(os, "sched_setaffinity", node.set_affinity)
    return node


@pytest.mark.usefixtures("guest")
def test_vhost_workers_that_are_apart_go_back_with_a_faked_libvirt(tmp_path: Path, node: FakeGuest) -> None:
    """A pretended kernel."""
    root, apart = str(tmp_path), order().replace(vhost="6-7")
    assert "live" in recording.record_audited(root, apart, None)
    assert [node.allowed(tid) for tid in (QEMU, WORKER)] == ["2", "6-7"]
    node.threads[WORKER].wants = {2}
    node.sync()
    assert recording.record_audited(root, apart, None) == {}, "libvirt was not called, and nobody was moved"
    assert node.allowed(WORKER) == "2"


@pytest.mark.parametrize(
    ("errors", "outcomes"),
    [
        ([0, TIMED_OUT], ["recorded"]),
        ([0, INTERNAL], ["recorded", "failed"]),
        ([INTERNAL], ["failed"]),
        ([], ["recorded", "failed"]),
    ],
    ids=["busy", "the persistent one fails", "the live one fails", "what stood there before cannot be kept"],
)
def test_vhost_workers_go_back_whatever_comes_of_the_rest_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, node: FakeGuest, errors: list[int], outcomes: list[str]
) -> None:
    """And the trail tells what was done until then."""
    guest.errors = errors.copy()
    if not errors:
        node.host.write("var/lib/emupin/former", "")
    with pytest.raises(EmupinError):
        record_audited(str(tmp_path), order().replace(vhost="6-7"), RULES)
    assert node.allowed(WORKER) == "6-7"
    assert [(entry["outcome"], entry["name"]) for entry in node.host.audit()] == [(each, "nfv-1") for each in outcomes]
    if "recorded" in outcomes:
        assert node.host.audit()[0]["diff"] == ["-live emulator: 2-5", "+live emulator: 2"]


@pytest.mark.parametrize("code", [NO_DOMAIN, INVALID])
def test_a_guest_that_stops_while_it_is_recorded_has_no_vhost_workers_any_more_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, code: int
) -> None:
    guest.errors = [code]
    assert record_audited(str(tmp_path), order().replace(vhost="6-7"), RULES) == {}
    assert HookHost(tmp_path).audit() == []


def test_only_live_where_nothing_is_to_persist_with_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    assert list(record(tmp_path, order(persist=False))) == ["live"]
    guest.pins[LIVE], guest.persistent = "2-5", False
    assert list(record(tmp_path, order())) == ["live"]
    assert guest.pins[CONFIG] == "2-5"


def test_an_incoming_migration_is_waited_for_with_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    HookHost(tmp_path).set_policy()
    guest.states = [(PAUSED, MIGRATION)] * 9 + [(PAUSED, STARTING)] * 9 + [(RUNNING, 0)]
    assert serve(tmp_path, order()) == ["recorded"]
    assert guest.pins == {LIVE: "2", CONFIG: "2"}


def run_on_cpu_2(root: Path, uuid: str, alone: bool) -> None:
    """A guest that runs and was given CPU 2, all to itself where it is `alone`."""
    folder = root / "run/libvirt/qemu"
    folder.mkdir(parents=True)
    (folder / f"{uuid}.xml").write_text(f"<domstatus pid='1'>{domain_xml(uuid, uuid=uuid)}</domstatus>")
    with Ledger(str(root), RULES) as ledger:
        ledger.claim(uuid, frozenset((2,)), dedicated=alone)
        ledger.save()


@pytest.mark.parametrize("taken_back", [False, True])
def test_an_order_is_void_that_a_later_decision_has_overtaken_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, taken_back: bool
) -> None:
    """It waits for a migration to end, the policy changes, and `apply` decides anew: other CPUs, or none."""
    run_on_cpu_2(tmp_path, UUID, alone=False)
    assert list(record(tmp_path, order(persist=False))) == ["live"], "while its decision holds it is carried out"
    guest.pins[LIVE] = "3"
    with Ledger(str(tmp_path), RULES) as ledger:
        if taken_back:
            ledger.release(UUID)
        else:
            ledger.claim(UUID, frozenset((3,)), dedicated=False)
        ledger.save()
    assert record(tmp_path, order(persist=False)) == {}
    assert guest.pins[LIVE] == "3"


BUSY: dict[str, dict[str, object]] = {
    "an incoming migration": {"states": [(PAUSED, MIGRATION)]},
    "a start": {"states": [(PAUSED, STARTING)]},
    "an outgoing migration": {"job": 2},
    "an incoming migration of a guest that runs already": {"refusals": [UNSUPPORTED] * 9},
    "QEMU that does not answer, which to ask would be to wait for": {"control": 2, "refusals": [INTERNAL]},
    "a job that libvirt does not tell of": {"refusals": [TIMED_OUT] * 9},
    "libvirt's own refusal": {"errors": [TIMED_OUT]},
}


@pytest.mark.parametrize("why", BUSY)
def test_a_guest_that_is_busy_is_to_be_asked_again_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, why: str
) -> None:
    vars(guest).update(copy.deepcopy(BUSY[why]))
    with pytest.raises(BusyError, match=r"busy|held"):
        record(tmp_path, order())
    assert guest.calls == []
    vars(guest).update(states=[(RUNNING, 0)], job=0, errors=[], refusals=[], control=0)
    assert list(record(tmp_path, order())) == ["live", "persistent"]


def test_a_backup_keeps_nobody_waiting_with_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    guest.job, guest.operation = 2, BACKUP
    assert list(record(tmp_path, order())) == ["live", "persistent"]


@pytest.mark.parametrize("why", BUSY)
def test_what_cannot_be_put_back_now_can_be_later_with_a_faked_libvirt(guest: FakeDomain, why: str) -> None:
    vars(guest).update(copy.deepcopy(BUSY[why]))
    with pytest.raises(BusyError, match=r"run `emupin apply --undo` when that has ended"):
        libvirtd.put_back(UUID, "live", {"emulator": frozenset({2})}, 0)
    assert guest.calls == []


def test_other_errors_are_trouble_with_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    guest.errors = [INTERNAL]
    with pytest.raises(RecordError, match="error 1; the threads are placed, but libvirt's XML does not record it"):
        record(tmp_path, order())


@pytest.mark.parametrize("uuid", [UUID, "00000000-0000-0000-0000-000000000000"])
def test_a_guest_that_is_gone_or_started_anew_is_left_alone_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, uuid: str
) -> None:
    guest.number = 8
    assert record(tmp_path, order(uuid)) == {}
    assert guest.calls == []


def test_a_definition_with_other_vcpu_pins_gets_its_own_pin_from_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path
) -> None:
    """vCPUs 0 and 1 change places at the next boot: the live pin would be on the CPU of vCPU 1."""
    guest.stored = domain_xml().replace("vcpu='0'", "vcpu='x'").replace("vcpu='1'", "vcpu='0'").replace("'x'", "'1'")
    done = record(tmp_path, order())
    assert {kind: one.after for kind, one in done.items()} == {"live": "2", "persistent": "3"}
    assert guest.pins == {LIVE: "2", CONFIG: "3"}
    assert former.recall(str(tmp_path), UUID)["persistent"].before == {"emulator": "2-5"}


@pytest.mark.parametrize("kind", [LIVE, CONFIG])
def test_what_was_before_is_known_where_libvirt_refuses_at_first_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, kind: int
) -> None:
    FakeGuest(HookHost(tmp_path), "none", {4242: FakeThread("qemu-system-x86", {2}, "")}, "/").host.write(
        "proc/4242/stat", f"4242 (qemu) S {'0 ' * 18}17 0\n"
    )
    record(tmp_path, order())
    guest.errors = [TIMED_OUT] if kind == LIVE else [0, TIMED_OUT]
    for expected in (BusyError, None):
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            record(tmp_path, order().replace(cpus=frozenset({3})), policy('"cpus:6"'))
    known = former.recall(str(tmp_path), UUID)
    assert [(each.before, each.was) for each in known.values()] == [({"emulator": "2-5"}, {})] * 2
    assert [each.ours for each in known.values()] == [{"emulator": "3"}, {"emulator": "6"}]


IMPOSSIBLE = "98", "99"
"""CPUs that the host does not have."""


@pytest.mark.parametrize(("before", "after"), [("0", "0"), (None, None), (IMPOSSIBLE[0], None)])
def test_a_pin_of_ours_that_has_become_impossible_gives_way_to_what_was_before_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, before: str | None, after: str | None
) -> None:
    root, ours = str(tmp_path), IMPOSSIBLE[1]
    former.remember(root, UUID, "persistent", {"emulator": before}, {"emulator": ours}, "")
    guest.pins[CONFIG] = ours
    done = record(tmp_path, order().replace(cpus=None), policy('"vcpu:7"'))
    assert guest.pins[CONFIG] == done["persistent"].after == after
    assert ("gave way to what stood there before (0)" in done["persistent"].why) == bool(after)
    guest.pins[CONFIG] = after
    former.remember(root, UUID, "persistent", {"emulator": after}, {"emulator": "2"}, "")
    assert former.recall(root, UUID)["persistent"].before == {"emulator": before}, "it is known through the next record"


@pytest.mark.parametrize("ours", [False, True])
def test_all_pins_that_give_way_are_remembered_and_in_the_trail_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, ours: bool
) -> None:
    """That of an iothread which does not follow stays, unless emupin has put it there, when it did."""
    root, absent = str(tmp_path), IMPOSSIBLE[1]
    text = domain_xml(emulatorpin=absent).replace("</vcpu>", "</vcpu><iothreads>1</iothreads>")
    guest.stored = text.replace("  </cputune>", f"    <iothreadpin iothread='1' cpuset='{absent}'/>\n  </cputune>")
    if ours:
        former.remember(root, UUID, "persistent", {"1": "3"}, {"1": absent}, "")
    record_audited(root, order().replace(cpus=None), policy('"vcpu:7"'))
    assert re.findall("<.*pin .*cpuset='(.*)'", guest.stored)[4:] == ["3" if ours else absent]
    changes = ["-persistent 1: 99", "+persistent 1: 3"] if ours else []
    assert HookHost(tmp_path).audit()[-1]["diff"] == ["-persistent emulator: 99", *changes]
    known = former.recall(root, UUID)["persistent"]
    assert former.to_put_back({"1": "3"}, known) == {"emulator": absent}


@pytest.mark.parametrize("follow", [True, False])
def test_what_is_told_where_only_iothreads_change_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, follow: bool
) -> None:
    former.remember(str(tmp_path), UUID, "persistent", {"1": "3"}, {"1": "5"}, "")
    text = domain_xml(emulatorpin="2").replace("</vcpu>", "</vcpu><iothreads>1</iothreads>")
    guest.stored = text.replace("  </cputune>", "    <iothreadpin iothread='1' cpuset='5'/>\n  </cputune>")
    rules = policy('"vcpu:0"', "iothreads: follow") if follow else policy('"vcpu:0"')
    done = record(tmp_path, order(), rules)["persistent"]
    assert done.changes == {"1": ("5", "2" if follow else "3")}
    back = f"{NO_MORE}: their pins gave way to what stood there before"
    assert done.why == ("iothread1 had another pin, now it has 2" if follow else back)


def test_guests_that_libvirt_does_not_know_any_more_are_forgotten_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path
) -> None:
    former.remember(str(tmp_path), OTHER, "persistent", {}, {"emulator": "2"}, "")
    assert list(record(tmp_path, order())) == ["live", "persistent"]
    assert os.listdir(tmp_path / "var/lib/emupin/former") == [UUID]
    assert guest.pins == {LIVE: "2", CONFIG: "2"}


def test_a_live_pin_that_is_none_leaves_the_live_definition_alone_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path
) -> None:
    assert list(record(tmp_path, order().replace(cpus=None))) == ["persistent"]
    assert guest.pins == {LIVE: "2-5", CONFIG: "2"}


def test_a_libvirt_that_restarts_in_the_middle_is_asked_again_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path
) -> None:
    guest.refusals, guest.errors = [LOST], [0, LOST]
    HookHost(tmp_path).set_policy(policy_text('"vcpu:0"', "persist: true"))
    assert serve(tmp_path, order()) == ["recorded", "recorded"]
    assert guest.pins == {LIVE: "2", CONFIG: "2"}


def test_a_guest_that_is_busy_keeps_no_other_waiting_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is not there any more, which is found out at once."""
    guest.states = [(PAUSED, MIGRATION)] * 5 + [(RUNNING, 0)]
    asked = []

    def ask(root: str, order: Order, policy: Policy | None) -> None:
        asked.append(order.uuid)
        record_audited(root, order, policy)

    monkeypatch.setattr(recorder, "record_audited", ask)
    assert serve(tmp_path, order(), order(OTHER)) == ["recorded"]
    assert sorted(asked[:2]) == sorted([UUID, OTHER])
    assert asked[2:] == [UUID] * 5


def test_the_asking_has_an_end_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WAIT_SECONDS", 0.01)
    guest.states = [(PAUSED, MIGRATION)]
    assert serve(tmp_path, order()) == ["failed"]
    (entry,) = HookHost(tmp_path).audit()
    assert re.search(r"the guest is busy: .*; run `emupin apply` when that has ended", str(entry["reason"]))
    assert guest.calls == []


def test_the_latest_order_for_a_guest_counts_with_a_faked_libvirt(guest: FakeDomain, tmp_path: Path) -> None:
    assert serve(tmp_path, order(), order().replace(cpus=frozenset({3}), persist=False)) == ["recorded"]
    assert guest.pins == {LIVE: "3", CONFIG: "2-5"}


def test_an_order_that_comes_while_its_guest_is_busy_takes_the_place_of_the_other_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.states = [(PAUSED, MIGRATION)]

    def come(_seconds: float) -> None:
        if guest.states == [(PAUSED, MIGRATION)]:
            orders.leave(str(tmp_path), "nfv-1", order().replace(cpus=frozenset({3})))
        guest.states = [(RUNNING, 0)]

    monkeypatch.setattr(time, "sleep", come)
    assert serve(tmp_path, order()) == ["recorded"]
    assert guest.pins[LIVE] == "3"


def test_after_an_upgrade_the_new_version_goes_on_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a long migration would load what is left to load from another version."""
    guest.states = [(PAUSED, MIGRATION)]
    monkeypatch.setattr(time, "sleep", lambda _seconds: monkeypatch.setattr(recorder, "stamp", lambda _path: ()))

    def become(program: str, command: list[str]) -> None:
        assert (program, command) == (sys.executable, orders.command())
        raise EOFError

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(EOFError):
        serve(tmp_path, order())
    assert os.listdir(tmp_path / "run/emupin/orders") == [f".{UUID}"], "it finds what was taken"


@pytest.mark.parametrize("newer", [False, True])
def test_what_a_process_left_that_was_killed_is_carried_out_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, newer: bool
) -> None:
    orders.leave(str(tmp_path), "nfv-1", order())
    folder = tmp_path / "run/emupin/orders"
    (folder / UUID).rename(folder / f".{UUID}")
    assert serve(tmp_path, *([order().replace(cpus=frozenset({3}))] if newer else [])) == ["recorded"]
    assert guest.pins[LIVE] == ("3" if newer else "2")


WHOLE = dict.fromkeys(("follow_iothreads", "persist", "rule", "placement", "policy")) | {"domain_id": "7", "cpus": "2"}


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", '{"cpus": "2"}', '{"cpus": "x-"}', "[1]", '"text"', "\xff", "[" * 100_000,
        *(json.dumps({**WHOLE, "uuid": OTHER, **wrong}) for wrong in ({"cpus": [2, 3]}, {"uuid": [1]}, {"uuid": UUID})),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_read_keeps_no_other_from_being_carried_out_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "run/emupin/orders"
    folder.mkdir(parents=True)
    (folder / OTHER).write_text(content, encoding="latin-1")
    (folder / f"{OTHER}.4711").write_text("still being written")
    (folder / "a folder").mkdir()
    with pytest.raises(AssertionError, match="4711"):
        serve(tmp_path, order())
    assert guest.pins[LIVE] == "2"
    assert sorted(os.listdir(folder)) == [f"{OTHER}.4711", "a folder"]


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("alone", [False, True])
def test_a_guest_that_the_ledger_does_not_know_is_recorded_unless_its_cpus_are_another_s_with_a_faked_libvirt(
    tmp_path: Path, alone: bool
) -> None:
    """The ledger was lost, or /run was full when it was to be noted."""
    run_on_cpu_2(tmp_path, OTHER, alone)
    assert list(record(tmp_path, order(persist=False))) == ([] if alone else ["live"])


def test_a_recording_process_that_ends_by_a_mistake_says_so() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); from emupin import recorder, trouble; "
        "trouble.log = lambda root, line, trouble: print(line); recorder._close_inherited = print; "
        "recorder.serve = lambda root: 1 / 0; recorder.main()"
    )
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_without_libvirt_python_one_line_says_what_to_install(tmp_path: Path) -> None:
    """And the process ends."""
    code = f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); from emupin.recorder import main; main()"
    orders.leave(str(tmp_path), "nfv-1", order())
    with (tmp_path / "lock").open("w") as lock:
        done = subprocess.run(
            [python(), "-I", "-S", "-c", f"import os; os.dup2({lock.fileno()}, 3); {code}"],
            env={"EMUPIN_ROOT": str(tmp_path)}, capture_output=True, text=True, check=True, pass_fds=(lock.fileno(),),
        )  # fmt: skip
    assert done.stdout == done.stderr == ""
    (line,) = (tmp_path / "var/log/emupin/audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["op"], entry["outcome"], entry["uuid"]) == ("record", "failed", UUID)
    assert entry["reason"].startswith("libvirt-python: is not installed; install python3-libvirt")


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """In place of the recording process: appends its open files and its session to a file, and ends when that goes."""
    seen = tmp_path / "seen"
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\n{{ ls -l /proc/$$/fd; echo "$@"; ps -o sid= -p $$; }} >>{seen}.new; ln {seen}.new {seen}\n'
        f"while [ -e {seen} ]; do sleep 0.05; done\n"
    )
    fake.chmod(0o755)
    return seen


LEAVE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from emupin import order
root, uuid, before, sys.executable = sys.argv[2:]
said = os.dup2(os.open(root + "/said.new", os.O_WRONLY | os.O_CREAT), 300)
def log(_root, line, trouble):
    os.write(said, line.encode())
    os.link(root + "/said.new", root + "/said")
order.log = log
last_act = order.leave(root, "nfv-1", order.Order(uuid, "7", frozenset({2}), True, False, "nfv", "vcpu:0", "digest"))
exec(before)
last_act()
os._exit(0)
"""


def leave(root: Path, uuid: str = UUID, before: str = "", executable: str = "", held: int = 1) -> None:
    """As the hook does, in a process that ends: leave an order, and start `root`'s fake_python to carry it out."""
    arguments = [str(PROJECT / "src"), str(root), uuid, before, executable or f"{root}/python"]
    subprocess.run([python(), "-I", "-S", "-c", LEAVE, *arguments], check=True, timeout=60, pass_fds=(held,))


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def end(fake_python: Path) -> None:
    """Let the process end that has said what it is, the leader of its session."""
    status = Path("/proc", fake_python.read_text().splitlines()[-1].strip(), "status")
    fake_python.unlink()
    deadline = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It may be gone at any time, or nobody's.
        while "(zombie)" not in status.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_process_holds_nothing_of_the_hook(tmp_path: Path, fake_python: Path) -> None:
    """libvirt waits for end-of-file on the hook's output: what stays behind must not hold it."""
    with (tmp_path / "held").open("w") as held:
        leave(tmp_path, held=held.fileno())
    text = wait_for(fake_python)
    assert text.count("/dev/null") >= 2, "stdin and stderr; stdout is this file"
    assert not [line for line in text.splitlines() if " 0 ->" in line or " 2 ->" in line if "/dev/null" not in line]
    assert "held" not in text
    assert int(text.splitlines()[-1]) != os.getsid(0), "a session of its own"
    end(fake_python)


def test_of_many_hooks_at_once_one_starts_a_process(tmp_path: Path, fake_python: Path) -> None:
    def number(count: int) -> None:
        leave(tmp_path, f"00000000-0000-0000-0000-{count:012}")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(number, range(50)))
    assert wait_for(fake_python).count("total") == 1
    assert len(os.listdir(tmp_path / "run/emupin/orders")) == 50
    end(fake_python)
    number(50)
    assert wait_for(fake_python).count("total") == 2, "with its end the lock is free"
    end(fake_python)


def test_a_hook_that_lives_on_does_not_pass_for_the_process(tmp_path: Path, fake_python: Path) -> None:
    """It may have modules to keep yet when the process that it has started has ended."""
    arguments = [str(PROJECT / "src"), str(tmp_path), UUID, "", f"{tmp_path}/python"]
    code = LEAVE.replace("os._exit(0)", "os._exit(os.path.exists(f'/proc/self/fd/{order.LOCK_AT}'))")
    subprocess.run([python(), "-I", "-S", "-c", code, *arguments], check=True, timeout=60)
    wait_for(fake_python)
    end(fake_python)


@pytest.mark.parametrize("place", ["run/emupin", "run/emupin/orders", "run/emupin/recorder"])
def test_where_no_order_can_be_left_a_process_gets_it_itself(tmp_path: Path, fake_python: Path, place: str) -> None:
    """/run is full, or somebody has put something else in the way."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to("/no/such")
    leave(tmp_path)
    assert f'"uuid": "{UUID}"' in wait_for(fake_python)
    end(fake_python)


def test_a_process_with_an_order_of_its_own_asks_until_it_is_done_with_a_faked_libvirt(
    guest: FakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMUPIN_ROOT", str(tmp_path))
    monkeypatch.setattr(recorder, "_close_inherited", lambda _last: None)
    guest.states = [(PAUSED, MIGRATION)] * 3 + [(RUNNING, 0)]
    recorder.main(json.dumps({**vars(order()), "cpus": "2"}))
    assert guest.pins[LIVE] == "2"


@pytest.mark.parametrize(
    ("before", "executable", "reason"),
    [
        ("", "/no/such", "No such file or directory"),
        ("os.fork = lambda: os.open('/dev/null/x', 0)", "", "Not a directory"),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))", "", "Too many open files"),
    ],
)
def test_a_process_that_cannot_be_started_is_said(tmp_path: Path, before: str, executable: str, reason: str) -> None:
    """And the order waits for the next one. What fork() would say is pretended."""
    leave(tmp_path, before=before, executable=executable)
    said = f"nfv-1: the recording process cannot be started: {reason}; the pin was not recorded: `emupin apply`"
    assert wait_for(tmp_path / "said") == said
    assert os.listdir(tmp_path / "run/emupin/orders") == [UUID]


MAIN = """
import os, sys
sys.path.insert(0, sys.argv[4])
from emupin import hook
def run(call):
    call.refuses, call.last_act = True, LAST_ACT
    sys.excepthook = lambda *error: hook._report_bug(call, *error)
    return int(sys.argv[5])
hook.run = run
KEEP
hook.main()
"""


def main(root: Path, last_act: str, status: int = 0, keep: str = "") -> subprocess.CompletedProcess[str]:
    """The hook's `main` where its work is done with `status`, and a policy refuses any trouble."""
    code = MAIN.replace("LAST_ACT", last_act).replace("KEEP", keep)
    words = ["0", "nfv-1", "started", str(PROJECT / "src"), str(status)]
    return subprocess.run(
        [python(), "-I", "-S", "-c", code, *words],
        env={"EMUPIN_ROOT": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("status", [0, 3])
def test_a_mistake_in_the_last_act_stops_no_guest(tmp_path: Path, status: int) -> None:
    done = main(tmp_path, "lambda: 1 / 0", status)
    assert done.returncode == status, done.stderr
    assert "division by zero (a bug" in str(HookHost(tmp_path).audit()[-1]["reason"])


def test_a_call_that_is_killed_while_it_keeps_its_modules_has_seen_to_its_order(tmp_path: Path) -> None:
    """On a slow machine the first call after a boot would have left an order to nobody."""
    keep = "hook.loader.keep = lambda _found: os.kill(os.getpid(), 9)"
    done = main(tmp_path, 'lambda: os.write(1, b"done")', keep=keep)
    assert (done.returncode, done.stdout) == (-9, "done")
