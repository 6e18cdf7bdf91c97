"""The assessment: what is out of line, and the cause that the places which hold a pin point to."""

from __future__ import annotations

import pytest
from hosts import UUID, domain_xml

from emupin.engine.definition import Settled
from emupin.engine.plan import Plan
from emupin.guest import domainxml
from emupin.guest.domain import Domain, Status
from emupin.guest.threads import EMULATOR, HELPER, IOTHREAD, VCPU, VHOST, Thread
from emupin.live import drift
from emupin.live.causes import FEWER_ABOVE, NEW_IOTHREAD, ROOT_CGROUP
from emupin.live.drift import DEFINED, TRANSIENT, UNKNOWN, Assessment, Drift, Group, Live
from emupin.node.enforce import UNMOVABLE

MAIN, RCU, VHOST_TID, WORKER, VCPU_TID, KERNEL = 4242, 4243, 4280, 4261, 4250, 4290
PLAN = Plan(frozenset({2}), "because", "nfv", "vcpu:0", persist=True)


def cpus(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def guest(pin: str | None = "2", vcpu0: str = "2", extra: str = "") -> Domain:
    text = domain_xml(emulatorpin=pin, extra=extra).replace("vcpu='0' cpuset='2'", f"vcpu='0' cpuset='{vcpu0}'")
    return domainxml.read(text.encode(), "guest")


def thread(tid: int, kind: str, *allowed: int, number: int | None = None) -> Thread:
    return Thread(tid, f"name-{tid}", kind, frozenset(allowed), number)


def live(now: Domain | None = None, stored: Domain | None = None, group: frozenset[int] | None = cpus(2)) -> Live:
    """A guest whose threads are where their cgroup lets them, decided and placed on 2."""
    here = sorted(group or {2})
    threads = (
        thread(MAIN, EMULATOR, *here),
        thread(RCU, EMULATOR, *here),
        thread(VHOST_TID, VHOST, *here),
        thread(WORKER, IOTHREAD, 7, number=1),
        thread(VCPU_TID, VCPU, 2, number=0),
        thread(KERNEL, HELPER, 2),
    )
    return Live(
        Status(MAIN, "running", {0: VCPU_TID}, now or guest()),
        threads,
        Group("/emulator", group, group) if group else None,
        {1: Group("/iothread1", cpus(7), cpus(7))},
        DEFINED,
        stored or guest(),
        cpus(2),
    )


def assess(found: Live, plan: Plan) -> Assessment:
    """The definition has the same plan, unless the test says otherwise."""
    return drift.assess(found if found.settled else found.replace(settled=Settled(plan)), plan)


def causes(found: Live, plan: Plan = PLAN) -> dict[str, set[str]]:
    by_place: dict[str, set[str]] = {}
    for each in assess(found, plan).drifts:
        by_place.setdefault(each.where, set()).add(each.cause)
    return by_place


def with_thread(found: Live, changed: Thread) -> Live:
    return found.replace(threads=tuple(changed if each.tid == changed.tid else each for each in found.threads))


def test_nothing_is_out_of_line() -> None:
    found = assess(live(), PLAN)
    assert found.in_line
    assert found.drifts == ()
    assert {each.thread.tid for each in found.threads if each.expected is not None} == {MAIN, RCU, VHOST_TID}
    assert (found.live_pin, found.persistent_pin, found.persistence) == (cpus(2), cpus(2), DEFINED)
    assert found.guest.uuid == UUID


@pytest.mark.parametrize("reason", ["no rule matches", "rule 'nfv' says keep"])
def test_a_guest_that_the_policy_leaves_alone_has_no_drift(reason: str) -> None:
    found = assess(live(guest("4-5"), guest("6"), cpus(4, 5)), Plan(None, reason))
    assert found.in_line
    assert all(each.expected is None for each in found.threads)


def test_a_rule_without_a_plan_is_not_in_line() -> None:
    found = assess(live(), Plan(None, "nothing passes", "nfv", failed=True))
    assert (found.in_line, found.drifts, found.problem) == (False, (), "nothing passes")


def test_a_pin_that_is_for_the_live_threads_only_is_missed_in_no_definition() -> None:
    assert causes(live(guest("2-5"), guest("2-5"))).keys() == {"live XML", "persistent XML"}
    assert assess(live(guest("2-5"), guest("2-5")), PLAN.replace(unstartable="libvirt cannot")).in_line


def test_a_thread_set_by_hand() -> None:
    found = with_thread(live(group=cpus(2, 3)), thread(RCU, EMULATOR, 3))
    plan = PLAN.replace(cpus=cpus(2, 3))
    drifts = [each for each in assess(found, plan).drifts if each.where == "thread"]
    cause = "set by hand (taskset): the cgroup is right"
    assert drifts == [Drift("thread", f"emulator thread 'name-{RCU}' ({RCU})", cpus(2, 3), cpus(3), cause, RCU)]


def test_a_vhost_worker_outside_the_cgroup() -> None:
    found = with_thread(live(), thread(VHOST_TID, VHOST, *range(16)))
    (cause,) = causes(found)["thread"]
    assert "Linux before 5.16" in cause


def test_vhost_workers_that_are_apart() -> None:
    """Their cgroup, the emulator's, covers both."""
    apart = PLAN.replace(vhost=cpus(6))
    placed = live(group=cpus(2, 6))
    threads = tuple(each.replace(allowed=cpus(6 if each.kind == VHOST else 2)) for each in placed.threads[:3])
    assert assess(placed.replace(threads=threads), apart).drifts == ()
    narrowed = assess(live(), apart).drifts
    assert [(each.where, each.expected, each.found) for each in narrowed] == [
        ("thread", cpus(6), cpus(2)),
        ("cgroup", cpus(2, 6), cpus(2)),
    ]


def test_a_thread_that_was_moved_out_of_the_cgroup() -> None:
    found = with_thread(live(), thread(RCU, EMULATOR, 5))
    assert causes(found) == {"thread": {"it was moved out of the guest's cgroup"}}


def test_a_thread_in_somebody_elses_cgroup() -> None:
    moved = thread(RCU, EMULATOR, 5).replace(group="/shield/user", outside=True)
    (cause,) = causes(with_thread(live(), moved))["thread"]
    assert cause.endswith("(cset, vfio-isolate or the like) put it into /shield/user")
    old = thread(VHOST_TID, VHOST, *range(16)).replace(group="/", outside=True)
    assert causes(with_thread(live(), old))["thread"] == {ROOT_CGROUP}
    fixed = thread(RCU, EMULATOR, 5).replace(fixed=True)
    assert causes(with_thread(live(), fixed))["thread"] == {UNMOVABLE}


def test_an_iothread_that_was_added() -> None:
    """Also where libvirt has no cgroups."""
    now = guest(extra="  <iothreads>1</iothreads>\n")
    plan = PLAN.replace(follow_iothreads=True)
    for found in (live(now, now), live(now, now, group=None).replace(iothread_groups={})):
        drifts = [each for each in assess(found, plan).drifts if "iothread" in each.what]
        assert {each.cause for each in drifts} == {NEW_IOTHREAD}


def test_an_iothread_that_was_deleted_and_added_again() -> None:
    """libvirt's live XML forgot its pin; the persistent one has it."""
    iothread = "  <iothreads>1</iothreads>\n"
    now = guest(extra=iothread)
    stored = now.replace(iothreadpins={1: cpus(2)})
    found = causes(live(now, stored), PLAN.replace(follow_iothreads=True))
    assert found == {key: {NEW_IOTHREAD} for key in ("thread", "cgroup", "live XML")}


@pytest.mark.parametrize("where", ["live XML", "persistent XML"])
def test_an_iothread_of_one_definition_alone(where: str) -> None:
    more = guest(extra="  <iothreads>1</iothreads>\n")
    now, stored = (more, guest()) if where == "live XML" else (guest(), more)
    found = assess(live(now, stored), PLAN.replace(follow_iothreads=True))
    assert {(each.where, each.cause) for each in found.drifts if "<" in each.what} == {(where, NEW_IOTHREAD)}


def test_a_slice_that_lost_the_planned_cpu() -> None:
    """What the kernel gives instead is no work of anybody's hand, nor of an old kernel's."""
    found = live(group=cpus(2)).replace(group=Group("/emulator", cpus(2), cpus(0, 1)))
    for tid, kind in ((MAIN, EMULATOR), (RCU, EMULATOR), (VHOST_TID, VHOST)):
        found = with_thread(found, thread(tid, kind, 0, 1))
    assert causes(found) == {"thread": {FEWER_ABOVE}, "cgroup": {FEWER_ABOVE}}


@pytest.mark.parametrize(
    ("pin", "expected"),
    [("2", "libvirt's XML is right"), ("5", "libvirt's XML says something else again")],
)
def test_a_cgroup_written_by_hand(pin: str, expected: str) -> None:
    found = causes(live(guest(pin), guest(pin), cpus(3)))
    assert found["thread"] == found["cgroup"] == {f"the cpuset cgroup was written by hand: {expected}"}


def test_a_cgroup_above_that_has_fewer_cpus() -> None:
    plan, both = PLAN.replace(cpus=cpus(2, 3)), guest("2-3")
    found = live(both, both).replace(group=Group("/emulator", cpus(2, 3), cpus(2)), claimed=cpus(2, 3))
    assert causes(found, plan)["cgroup"] == {"a cgroup above the guest's has fewer CPUs"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("2", "`virsh emulatorpin --live` only: the persistent XML is right"),
        ("3", "`virsh emulatorpin --live --config`"),
        ("5", "`virsh emulatorpin --live`, and the persistent XML has another pin again"),
    ],
)
def test_a_live_pin_by_hand(stored: str, expected: str) -> None:
    found = causes(live(guest("3"), guest(stored), cpus(3)))
    assert found["live XML"] == found["cgroup"] == found["thread"] == {expected}


@pytest.mark.parametrize("persistence", [TRANSIENT, UNKNOWN])
def test_a_live_pin_by_hand_where_there_is_no_persistent_definition(persistence: str) -> None:
    found = live(guest("3"), group=cpus(3)).replace(persistence=persistence, persistent=None)
    assert causes(found) == {key: {"`virsh emulatorpin --live`"} for key in ("live XML", "cgroup", "thread")}


@pytest.mark.parametrize(("stored", "words"), [("5", "`virsh emulatorpin --config` only"), (None, "without a pin")])
def test_a_persistent_pin_by_hand(stored: str | None, words: str) -> None:
    found = causes(live(stored=guest(stored)))
    assert found.keys() == {"persistent XML"}
    assert words in found["persistent XML"].pop()
    assert causes(live(stored=guest(stored)), PLAN.replace(persist=False)) == {}


def test_threads_are_placed_and_libvirt_does_not_know_yet() -> None:
    found = causes(live(guest("2-5"), guest("2-5")))
    (cause,) = found["live XML"]
    assert cause.startswith("libvirt has not recorded it yet")
    assert found == {key: {cause} for key in ("live XML", "persistent XML")}


def test_a_guest_that_was_never_placed() -> None:
    found = live(guest("2-5"), guest("2-5"), cpus(2, 3, 4, 5)).replace(claimed=None)
    (cause,) = causes(found)["thread"]
    assert cause.startswith("no placement of this run of the guest is known")
    assert causes(found) == {key: {cause} for key in ("thread", "cgroup", "live XML", "persistent XML")}
    assert causes(found.replace(persistent=guest(None)))["persistent XML"] == {cause}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (guest(vcpu0="8"), "vCPUs were re-pinned (`virsh vcpupin`)"),
        (guest(), "the policy, the host or another guest"),
    ],
)
def test_a_plan_that_has_changed(now: Domain, words: str) -> None:
    found = causes(live(now), PLAN.replace(cpus=cpus(8)))
    assert found.keys() == {"thread", "cgroup", "live XML", "persistent XML"}
    assert all(cause.startswith(words) and cause.endswith("the plan has changed") for (cause,) in found.values())


def test_a_plugged_vcpu_is_named() -> None:
    stored = domainxml.read(domain_xml(emulatorpin="2").replace("<vcpu ", "<vcpu current='2' ").encode(), "guest")
    found = assess(live(stored=stored), Plan(None, "nothing passes", "nfv", failed=True))
    assert found.problem == "nothing passes (vCPUs were plugged in or out)"
    both = found.replace(live=live(guest(vcpu0="8"), stored))
    assert both.problem == "nothing passes (vCPUs were plugged in or out and re-pinned (`virsh vcpupin`))"


def test_without_a_cpuset_cgroup() -> None:
    found = with_thread(live(guest("3"), group=None), thread(MAIN, EMULATOR, 3))
    assert causes(found)["thread"] == {
        "`virsh emulatorpin --live`, which moves the main thread only where there is no cpuset cgroup"
    }
    assert causes(found)["live XML"] == {"`virsh emulatorpin --live` only: the persistent XML is right"}
    found = with_thread(live(group=None), thread(RCU, EMULATOR, 3))
    assert causes(found) == {"thread": {"set by hand (taskset), or started by a thread that was"}}


def test_iothreads_that_follow() -> None:
    pinned = guest(extra="  <iothreads>1</iothreads>\n")
    drifts = assess(live(pinned, pinned), PLAN.replace(follow_iothreads=True)).drifts
    assert [(each.where, each.what, each.found) for each in drifts] == [
        ("thread", f"iothread thread 'name-{WORKER}' ({WORKER})", {7}),
        ("cgroup", "cpuset.cpus of iothread1", {7}),
        ("live XML", "<iothreadpin> of iothread1", None),
        ("persistent XML", "<iothreadpin> of iothread1", None),
    ]


# -- the persistent definition is a guest of its own ------------------------------------------------------------------


def test_a_definition_with_other_vcpu_pins_has_another_pin() -> None:
    stored = guest("3", vcpu0="3")
    settled = Settled(PLAN.replace(cpus=cpus(3)))
    found = live(guest("2"), stored).replace(settled=settled)
    assert assess(found, PLAN).in_line
    (left,) = assess(found.replace(persistent=guest("2", vcpu0="3")), PLAN).drifts
    assert (left.where, left.expected, left.found) == ("persistent XML", cpus(3), cpus(2))


def test_a_definition_that_libvirt_cannot_start() -> None:
    failed = Plan(None, "nothing passes", "nfv", failed=True, persist=True)
    found = live().replace(
        persistent=guest("99"), settled=Settled(failed, {"emulator": None}, {"emulator": "it cannot start so"})
    )
    (left,) = assess(found, PLAN).drifts
    assert (left.where, left.expected, left.found) == ("persistent XML", None, cpus(99))
    assert left.cause == "it cannot start so"
