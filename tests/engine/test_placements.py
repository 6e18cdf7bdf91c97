"""Every placement: what it names, in which order it chooses, and the sentence for why it names nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decisions import ANOTHER, THIRD, GuestXml, decide, held, host, pins, policy

from emupin.base import cpuset
from emupin.engine.host import Host
from emupin.engine.plan import plan
from emupin.engine.situation import Others
from emupin.guest import domainxml

SMT = host("xeon-2x32-smt")
"""Siblings are n and n + 64; node 0 is 0-31 and 64-95, node 1 is 32-63 and 96-127."""
GUEST = GuestXml(pins(10, 74, 11, 75))
UNPINNED = "vCPU 1 is not pinned: `dedicated`, `pool` or `cpus:LIST` need no pin"
BOTH_NODES = GuestXml(pins(40, 10))
"""vCPU 0 is on node 1."""


def chosen(
    placement: str,
    guest: GuestXml = GUEST,
    others: Others = Others(),  # noqa: B008 - immutable
    checks: str = "",
    machine: Host | None = SMT,
    **host_part: str,
) -> str:
    """The CPUs, or the problem."""
    plan = decide(guest, policy(placement, checks=checks, **host_part), machine, others)
    return str(plan.attempts[-1].problem) if plan.failed else cpuset.format(plan.cpus or ())


@pytest.mark.parametrize(
    ("placement", "guest", "expected"),
    [
        ('"vcpu:0"', GUEST, "10"),
        ('"vcpu:0"', GuestXml(pins("10,12", 11)), "10,12"),
        ('"vcpu:0"', GuestXml(vcpus=1, vcpu_attributes="cpuset='4-5'"), "4-5"),
        ('"vcpu:0"', GuestXml(vcpus=1), UNPINNED.replace("vCPU 1", "vCPU 0")),
        ('"vcpu:4"', GUEST, "the guest has 4 vCPUs, numbered from 0"),
        ('"vcpu:2"', GUEST, "11"),
        ('"vcpu:0,2"', GUEST, "10-11"),
        ('"vcpu:0-1,^0"', GUEST, "74"),
        ('"vcpu:0,4"', GUEST, "the guest has 4 vCPUs, numbered from 0"),
        ('"vcpu:1"', GuestXml(pins(10, 11, 11)), "vCPU 2 runs on CPU 11"),
        ('"vcpu:0"', GuestXml({0: "10"}, vcpus=4), "10"),
        ('"vcpu:0-1"', GuestXml({0: "10"}, vcpus=2), UNPINNED),
        ('"vcpu:non-realtime"', GuestXml(pins(10, 74, 11, 75), realtime="2-3"), "10,74"),
        ('"vcpu:non-realtime"', GuestXml(pins(10, 74, 11, 75), realtime="0-2"), "75"),
        ('"vcpu:non-realtime"', GuestXml(pins(10, 74), realtime="0-1"), "every vCPU of the guest is a realtime one"),
        ('"vcpu:non-realtime"', GUEST, "the guest has no realtime vCPU"),
        ('"vcpu:0"', GuestXml(pins(10, 74), realtime="0"), "vCPU 0, a realtime one, runs on CPU 10"),
        ('"cpus:2,34"', GUEST, "2,34"),
        ("keep", GUEST, ""),
    ],
)
def test_placements_without_a_pool(placement: str, guest: GuestXml, expected: str) -> None:
    assert chosen(placement, guest) == expected


# -- pool -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "others", "expected"),
    [
        (GUEST, Others(), "2-3,66-67"),
        (GuestXml(pins(40)), Others(), "34-35"),
        (BOTH_NODES, Others(), "2-3,34-35,66-67"),
        (GuestXml(vcpus=1), Others(), "2-3,34-35,66-67"),
        (GUEST, held(dedicated={2: ANOTHER, 66: THIRD}), "3,67"),
        (GUEST, held(shared={2: ANOTHER, 66: THIRD}), "2-3,66-67"),
        (
            GuestXml(pins(40)),
            held(dedicated={34: ANOTHER, 35: THIRD}),
            f"all 2 CPUs of the pool are held, by guests {ANOTHER} and {THIRD}",
        ),
        (GUEST, held(vcpus={3: ANOTHER}), f"CPU 3 runs vCPUs of guest {ANOTHER}"),
    ],
)
def test_pool(guest: GuestXml, others: Others, expected: str) -> None:
    assert chosen("pool", guest, others, pool="2-3,34-35,66-67") == expected


def test_pool_without_a_cpu_near() -> None:
    assert chosen("pool", pool="34-35") == "the pool 34-35 has no CPU on the guest's NUMA nodes"
    assert chosen("pool", machine=None, pool="34-35") == "34-35"


@pytest.mark.parametrize(
    ("why", "interrupts", "before", "expected"),
    [
        ("none there", (), None, "2-3,66-67"),
        ("some", (3,), None, "2,66-67"),
        ("all", (2, 3, 66, 67), None, "2-3,66-67"),
        ("they have moved, it stays", (2,), "2,66-67", "2,66-67"),
        ("they have gone, it takes the whole pool", (), "2,66-67", "2-3,66-67"),
        ("what it had is no longer of the pool", (3,), "1-2,66", "2,66-67"),
        ("what it had was less than the rest", (3,), "2", "2,66-67"),
    ],
)
def test_pool_and_interrupts(why: str, interrupts: tuple[int, ...], before: str | None, expected: str) -> None:
    """Interrupts move about: whoever follows them would drift every few seconds."""
    machine = SMT.replace(interrupts=frozenset(interrupts))
    held_before = held(previous=cpuset.parse(before) if before else None)
    assert chosen("pool", others=held_before, machine=machine, pool="2-3,34-35,66-67") == expected, why
    recorded = GuestXml(GUEST.pins, before)
    assert chosen("pool", recorded, machine=machine, pool="2-3,34-35,66-67") == expected, why
    indifferent = chosen("pool", GUEST, checks="interrupts: off", machine=machine, pool="2-3,34-35,66-67")
    assert indifferent == "2-3,66-67"


# -- dedicated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "guest", "others", "pool", "expected"),
    [
        ("the lowest number", GUEST, Others(), "2-5", "2"),
        ("what it held before", GUEST, held(previous=frozenset((4,))), "2-5", "4"),
        ("before, though on another node", GUEST, held(previous=frozenset((34,))), "2-5,34", "34"),
        ("before, but taken", GUEST, held({}, {4: ANOTHER}, {}, frozenset((4,))), "2-5", "2"),
        ("before, but shared", GUEST, held({}, {}, {4: ANOTHER}, frozenset((4,))), "2-5", "2"),
        ("before, but a vCPU arrived", GUEST, held({4: ANOTHER}, {}, {}, frozenset((4,))), "2-5", "2"),
        ("before, of another size", GUEST, held(previous=frozenset((4, 5))), "2-5", "2"),
        ("before, no longer of the pool", GUEST, held(previous=frozenset((7,))), "2-5", "2"),
        ("the pin that it has", GuestXml(GUEST.pins, "5"), Others(), "2-5", "5"),
        (
            "before, ahead of the pin that it has",
            GuestXml(GUEST.pins, "5"),
            held({}, {}, {}, frozenset((4,))),
            "2-5",
            "4",
        ),
        ("the node of vCPU 0", BOTH_NODES, Others(), "2-5,50", "50"),
        ("the node of vCPU 0 ahead of an idle core", BOTH_NODES, Others(), "2-5,104", "104"),
        ("then its other nodes", BOTH_NODES, held(dedicated={50: ANOTHER}), "2-5,50", "2"),
        ("then any", GuestXml(pins(40)), Others(), "2-5", "2"),
        ("an idle core ahead of a vCPU's sibling", GUEST, Others(), "10,74-75,90", "90"),
        ("an idle core ahead of another guest's", GUEST, held(vcpus={66: ANOTHER}), "2-3", "3"),
        ("an idle core ahead of a dedicated one's", GUEST, held(dedicated={66: ANOTHER}), "2-3", "3"),
        ("an idle core ahead of a shared one's", GUEST, held(shared={66: ANOTHER}), "2-3", "3"),
        ("where nobody floats", GUEST, held(floating={2: ANOTHER, 3: THIRD}), "2-5", "4"),
        ("where it does not float itself", GuestXml(pins("2-3", 10)), Others(), "2-5", "4"),
        ("floating ahead of another node", GUEST, held(floating={2: ANOTHER}), "2,34", "2"),
        ("where no iothread of another's is", GUEST, held(iothreads={2: ANOTHER}), "2-5", "3"),
        ("where none of its own is", GuestXml(GUEST.pins, iothreads={1: "2-3"}), Others(), "2-5", "4"),
        ("one evil rather than two", GUEST, held(iothreads={2: ANOTHER, 3: THIRD}, floating={2: THIRD}), "2-3", "3"),
        ("an undisturbed CPU ahead of an idle core", GUEST, held({67: THIRD}, floating={2: ANOTHER}), "2-3", "3"),
        ("a floating vCPU's CPU if none is left", GUEST, held(floating={2: ANOTHER, 3: THIRD}), "2-3", "2"),
        ("a sibling if nothing else is left", GUEST, Others(), "10-11,28,74-75,92", "28"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_dedicated_prefers(why: str, guest: GuestXml, others: Others, pool: str, expected: str) -> None:
    assert chosen("dedicated", guest, others, pool=pool) == expected, why


def test_pool_does_not_stay_where_an_orchestrator_put_it() -> None:
    """Nova's union is as large as the rest of the pool, or larger."""
    machine = SMT.replace(interrupts=cpuset.parse("4-5"))
    assert chosen("pool", GuestXml(pins(4, 5), "4-5"), machine=machine, pool="4-7") == "6-7"
    assert chosen("pool", GuestXml(GUEST.pins, "4-7"), machine=machine, pool="4-7") == "6-7"


def test_dedicated_prefers_cpus_without_interrupts() -> None:
    machine = SMT.replace(interrupts=frozenset((2, 3)))
    assert chosen("dedicated", machine=machine, pool="2-5") == "4"
    assert chosen("dedicated", machine=machine, pool="2-3") == "2"
    assert chosen("dedicated", machine=machine, checks="interrupts: off", pool="2-5") == "2"
    assert chosen("dedicated", machine=machine, checks="interrupts: error", pool="2-3") == (
        "all 2 CPUs of the pool are handling network interrupts"
    )


def test_dedicated_where_somebody_floats_says_so() -> None:
    """In one sentence, however many CPUs and guests; where the policy has it an error, it is not taken."""
    others = held(floating={2: ANOTHER, 3: THIRD})
    plan = decide(GUEST, policy('"dedicated:2"', pool="2-3"), SMT, others)
    assert plan.warnings == (
        f"dedicated:2: CPUs 2-3 may also run vCPUs that are not pinned: those of guests {ANOTHER} and {THIRD}",
    )
    assert chosen("dedicated", others=others, checks="floating: error", pool="2-3") == (
        "all 2 CPUs of the pool are where vCPUs float"
    )


TWO_L3 = host("ryzen-1x16-two-l3")
"""Siblings are n and n + 16; cores 0-7 share one level 3 cache, cores 8-15 the other."""
ON_THE_FIRST = GuestXml(pins(*(cpu for core in range(1, 8) for cpu in (core, core + 16))))
"""It has all of the first cache but core 0."""


@pytest.mark.parametrize(
    ("placement", "guest", "others", "pool", "expected"),
    [
        ('"dedicated:2"', ON_THE_FIRST, Others(), "0,8-11,16,24-27", "0,16"),
        ("dedicated", ON_THE_FIRST, Others(), "0,8-11,16,24-27", "0"),
        ("dedicated", GuestXml(pins(9)), Others(), "0-3,10-11", "10"),
        ("dedicated", GuestXml(pins(9)), Others(), "0-3,25", "0"),
        ('"dedicated:4"', ON_THE_FIRST, Others(), "0,8-11,16,24-27", "0,8,16,24"),
        ('"dedicated:3"', ON_THE_FIRST, Others(), "0,8-11,16,24-27", "0,8,16"),
        ('"dedicated:3"', ON_THE_FIRST, held({24: ANOTHER}), "0,8-11,16,25-27", "0,9,16"),
        ('"dedicated:2"', ON_THE_FIRST, Others(), "0,8-9,24-25", "8,24"),
        ('"dedicated:2"', ON_THE_FIRST, held(dedicated={24: ANOTHER}), "0,8,10-11", "0,10"),
        ('"dedicated:2"', GuestXml(pins(9)), Others(), "0,2,16,10,26", "10,26"),
    ],
)
def test_dedicated_takes_whole_idle_cores_and_stays_in_the_cache(
    placement: str, guest: GuestXml, others: Others, pool: str, expected: str
) -> None:
    assert chosen(placement, guest, others, machine=TWO_L3, pool=pool) == expected


def test_dedicated_prefers_a_core_without_reserved_siblings() -> None:
    assert chosen("dedicated", pool="2-3", reserved="66") == "3"


def test_dedicated_of_several_goes_by_number_too() -> None:
    assert chosen('"dedicated:2"', pool="2-5") == "2-3"
    assert chosen('"dedicated:2"', others=held(dedicated={66: ANOTHER}), pool="2-5") == "3-4"
    assert chosen('"dedicated:2"', others=held(previous=frozenset((3, 5))), pool="2-5") == "3,5"


def test_dedicated_without_a_host_goes_by_number() -> None:
    assert chosen("dedicated", BOTH_NODES, machine=None, pool="2-5,50") == "2"


@pytest.mark.parametrize(
    ("placement", "others", "checks", "pool", "expected"),
    [
        (
            "dedicated",
            held(dedicated={2: ANOTHER, 3: ANOTHER, 4: THIRD, 5: THIRD}),
            "",
            "2-5",
            f"all 4 CPUs of the pool are held, by guests {ANOTHER} and {THIRD}",
        ),
        ("dedicated", held(shared={2: ANOTHER}), "", "2", f"the only CPU, 2, of the pool is held, by guest {ANOTHER}"),
        ("dedicated", Others(), "", "10-11", "all 2 CPUs of the pool are used by vCPUs"),
        ("dedicated", held(vcpus={2: ANOTHER}), "", "2", "the only CPU, 2, of the pool is used by vCPUs"),
        ("dedicated", Others(), "numa: error", "34-35", "all 2 CPUs of the pool are on other NUMA nodes"),
        (
            '"dedicated:3"',
            held({2: THIRD}, {3: ANOTHER}),
            "",
            "2-5",
            "2 of the 4 CPUs of the pool are free, 3 wanted; CPU 2 is used by vCPUs; "
            f"CPU 3 is held, by guest {ANOTHER}",
        ),
        (
            '"dedicated:2"',
            Others(),
            "",
            "2,300",
            "1 of the 2 CPUs of the pool is free, 2 wanted; CPU 300 is offline",
        ),
    ],
)
def test_dedicated_says_why_not(placement: str, others: Others, checks: str, pool: str, expected: str) -> None:
    assert chosen(placement, others=others, checks=checks, pool=pool) == expected


@pytest.mark.parametrize(
    ("placement", "checks", "pool", "expected"),
    [
        ("dedicated", "smt: error", "20,84", "20"),
        ("dedicated", "smt: error", "75,92", "92"),
        ("dedicated", "smt: error", "52,75-76", "76"),
        ("dedicated", "smt: off", "52,75-76", "76"),
    ],
)
def test_dedicated_where_siblings_are_an_error(placement: str, checks: str, pool: str, expected: str) -> None:
    assert chosen(placement, checks=checks, pool=pool) == expected


def test_a_check_that_is_an_error_narrows_the_choice() -> None:
    """`dedicated` does not name a CPU of the nearest node that its own checks then refuse, while another would do."""
    guest = GuestXml(pins(10, 11))
    assert chosen("dedicated", guest, checks="smt: error", pool="40,75") == "40"
    assert chosen("dedicated", guest, checks="smt: warn", pool="40,75") == "75"
    assert chosen("dedicated", guest, checks="smt: error", pool="75") == (
        "the only CPU, 75, of the pool is on cores that run vCPUs"
    )
    floating = GuestXml({0: "10"}, vcpus=3, vcpu_attributes="cpuset='4-7'", realtime="1-2")
    assert chosen("dedicated", floating, pool="4,40") == "40"
    isolated = host("xeon-2x16-offline-isolated")
    strict = chosen('"dedicated:2"', GuestXml(pins(8, 9)), checks="isolated: error", machine=isolated, pool="1-2,16,32")
    assert strict == "1,32"
    assert chosen("dedicated", GuestXml(pins(8, 9)), checks="isolated: error", machine=isolated, pool="2") == "2"


# -- vhost workers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emulator", "vhost", "others", "expected"),
    [
        ('"vcpu:0"', "dedicated", Others(), ("10", "2", "dedicated", True)),
        ("dedicated", "dedicated", Others(), ("2", "3", "dedicated", True)),
        ("dedicated", "pool", Others(), ("2", "3-4", "pool", False)),
        ('"cpus:2"', "dedicated", Others(), ("2", "3", "dedicated", True)),
        ("pool", "dedicated", Others(), ("2-4", "2", "dedicated", True)),
        ('"vcpu:0"', '["cpus:11", "cpus:28"]', Others(), ("10", "28", "cpus:28", False)),
        ('"vcpu:0"', '"vcpu:2"', Others(), ("10", "11", "vcpu:2", False)),
        ("dedicated", "dedicated", Others(vhost=frozenset((4,))), ("2", "4", "dedicated", True)),
        ("dedicated", "dedicated", Others(vhost=frozenset((2,))), ("2", "3", "dedicated", True)),
        ("keep", "dedicated", Others(), ("", "", None, False)),
    ],
)
def test_vhost_workers_have_placements_of_their_own(
    emulator: str, vhost: str, others: Others, expected: tuple[str, str, str | None, bool]
) -> None:
    plan = decide(GUEST, policy(emulator, f"vhost: {vhost}", pool="2-4"), SMT, others)
    told = cpuset.format(plan.cpus or ()), cpuset.format(plan.vhost or ()), plan.vhost_placement, plan.vhost_dedicated
    assert told == expected


def test_vhost_workers_without_a_place_of_their_own_go_with_the_emulator_threads() -> None:
    plan = decide(GUEST, policy("dedicated", "vhost: dedicated", pool="2"), SMT)
    why = "dedicated: the only CPU, 2, of the pool is held, by guest 5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"
    assert (plan.cpus, plan.vhost) == (frozenset((2,)), None)
    assert plan.warnings == (f"vhost workers go with the emulator threads: no placement of their own passes ({why})",)
    warned = decide(GUEST, policy('"vcpu:0"', 'vhost: "cpus:34"'), SMT)
    assert warned.warnings == ("vhost workers: cpus:34: NUMA node 1 is not the guest's, which is 0",)


# -- order ------------------------------------------------------------------------------------------------------------


def test_fallback_in_order_with_each_reason() -> None:
    rules = policy('dedicated, "vcpu:9", "vcpu:0", pool', pool="2")
    plan = decide(GUEST, rules, SMT, held(dedicated={2: ANOTHER}))
    assert (plan.placement, plan.cpus, plan.dedicated) == ("vcpu:0", frozenset((10,)), False)
    assert plan.reason == (
        "rule 'nfv' says vcpu:0 after dedicated was skipped: the only CPU, 2, of the pool is held, "
        f"by guest {ANOTHER}; vcpu:9 was skipped: the guest has 4 vCPUs, numbered from 0"
    )
    assert [attempt.placement.text for attempt in plan.attempts] == ["dedicated", "vcpu:9", "vcpu:0"]


@pytest.mark.parametrize(
    ("guest", "networking", "expected"),
    [
        ("dpdk", "ovs-dpdk", ["vcpu:0"]),
        ("dpdk", "kernel", ["dedicated", "vcpu:0"]),
        ("kernel", "ovs-dpdk", ["dedicated"]),
        ("kernel", "kernel", ["dedicated"]),
    ],
)
def test_auto_is_expanded_in_its_place(guest: str, networking: str, expected: list[str]) -> None:
    rules = policy('"vcpu:9", auto, "vcpu:8"', f"guest: {guest}", networking=networking, pool="2", reserved="10")
    attempts = decide(GUEST, rules, SMT, held(dedicated={2: ANOTHER})).attempts
    assert [attempt.placement.text for attempt in attempts] == ["vcpu:9", *expected, "vcpu:8"]


@pytest.mark.parametrize("level", ["warn", "error"])
def test_iothreads_do_not_go_with_the_vhost_workers(level: str) -> None:
    """They go with the emulator threads, or stay; what is wrong with that is said once."""
    checks = f"vcpu_overlap: warn, iothread_overlap: {level}, numa: off"
    following = decide(
        replace(GUEST, iothreads={1: ""}),
        policy("dedicated", 'iothreads: follow\n    vhost: "cpus:11"', checks, pool="34"),
        SMT,
    )
    assert (following.cpus, following.vhost) == (frozenset((34,)), frozenset((11,)))
    assert following.warnings == ("vhost workers: cpus:11: vCPU 2 runs on CPU 11",)
    if level == "warn":
        staying = decide(
            replace(GUEST, iothreads={1: "11"}), policy("dedicated", 'vhost: "cpus:35"', checks, pool="34"), SMT
        )
        assert staying.warnings == ("dedicated: iothread 1 may run on CPU 11, the CPU of vCPU 2",)


@pytest.mark.parametrize("placement", ["dedicated", "pool"])
@pytest.mark.parametrize("bound", ["<memory mode='strict' nodeset='1'/>", "<memnode cellid='0' nodeset='1'/>"])
def test_a_guest_whose_vcpus_may_run_anywhere_is_at_home_with_its_memory(placement: str, bound: str) -> None:
    xml = GuestXml(vcpus=2).text.replace("<cputune>", f"<numatune>{bound}</numatune><cputune>")
    guest = domainxml.read(xml.encode(), "nfv-1")
    planned = plan(guest, policy(placement, checks="numa: error, floating: off", pool="2,34"), SMT)
    assert planned.cpus == frozenset((34,))
    assert plan(guest, policy('"cpus:2"', checks="numa: error", pool="2"), SMT).failed
    without_cpus = SMT.replace(nodes={0: SMT.online, 1: frozenset()})
    assert plan(guest, policy(placement, checks="floating: off", pool="2"), without_cpus).cpus == frozenset((2,))


def test_what_was_dedicated_is_not_the_pool_at_the_next_call() -> None:
    """The pool without interrupts is CPU 3, where a vCPU floats: CPU 2 is dedicated, and stays so."""
    guest = GuestXml({0: "10", 1: "3,11"})
    rules = policy("pool, dedicated", checks="floating: error", pool="2-3")
    machine = SMT.replace(interrupts=frozenset((2,)))
    first = decide(guest, rules, machine)
    assert (first.cpus, first.dedicated) == (frozenset((2,)), True)
    again = decide(guest, rules, machine, Others(previous=first.cpus))
    recorded = decide(replace(guest, emulatorpin="2"), rules, machine)
    assert [(each.cpus, each.dedicated) for each in (again, recorded)] == [(first.cpus, True)] * 2
