"""Whether libvirt can start a guest with a pin: each reason, and that a planned pin which is none stays out of XML."""

from __future__ import annotations

from typing import Any

import pytest
from decisions import GuestXml, pins, policy

from emupin.base import cpuset
from emupin.engine.definition import settle
from emupin.engine.explanation import explain
from emupin.engine.host import Host
from emupin.engine.plan import plan
from emupin.engine.startable import obstacle, risk, slows_allocation
from emupin.guest.domain import Domain, Memory
from emupin.screen.explanationtext import render

Nodes = frozenset[int]

DEBIAN_12, DEBIAN_13, RHEL_9_2 = "9.0.0 9.0.0-4+deb12u2", "11.3.0 11.3.0-3", "9.0.0 10.1.el9_2"
TWO_NODES = Host(
    frozenset(range(8)),
    nodes={0: frozenset(range(4)), 1: frozenset(range(4, 8))},
    possible=frozenset(range(16)),
    cgroup="v2",
    libvirt=DEBIAN_12,
)
NARROW = {"/machine": frozenset(range(4))}
NODE_0, NODE_1 = frozenset((0,)), frozenset((1,))


def guest(**memory: Any) -> Domain:
    return GuestXml(pins(0, 4)).domain.replace(memory=Memory(**memory))


@pytest.mark.parametrize(
    ("cgroup", "cpus", "why"),
    [
        ("v1", "0", None),
        ("v1", "0,9", "CPU 9 is not online"),
        ("v1", "0,4", "CPU 4 is outside the guest's cgroup (/machine may have 0-3)"),
        ("v1", "4-5", "CPUs 4-5 are outside the guest's cgroup (/machine may have 0-3)"),
        ("v2", "0,9", None),  # The kernel has room for it, and takes what is there.
        ("v2", "0,4", None),
        ("v2", "9", "CPU 9 is not online"),
        ("v2", "4,9", "CPU 9 is not online"),
        ("v2", "4", "CPU 4 is outside the guest's cgroup (/machine may have 0-3)"),
        ("v2", "0,16", "CPU 16 is not online"),
        ("", "0,16", None),  # sched_setaffinity(2) alone.
        ("", "16", "CPU 16 is not online"),
    ],
)
def test_cpus_that_no_thread_of_the_guest_may_have(cgroup: str, cpus: str, why: str | None) -> None:
    host = TWO_NODES.replace(cgroup=cgroup, partitions=NARROW)
    assert obstacle(cpuset.parse(cpus), guest(), host) == why


def test_without_a_host_nothing_is_known() -> None:
    assert obstacle(frozenset((99,)), guest(), None) is None
    assert risk(frozenset((99,)), guest(automatic=True), None) is None


HUGE: dict[str, Any] = {"hugepages": (None,)}
BOTH: dict[str, Any] = {"cells": (0, 1), "memnodes": {0: NODE_0, 1: NODE_1}}


@pytest.mark.parametrize(
    ("memory", "cpus", "node"),
    [
        ({"immediate": True, **BOTH}, "0", "1"),
        ({"immediate": True, **BOTH}, "0,4", None),
        ({**HUGE, **BOTH}, "4", "0"),
        ({"hugepages": (NODE_0,), **BOTH}, "0", None),  # Cell 1 has ordinary pages.
        ({"hugepages": (NODE_0, NODE_1), **BOTH}, "0", "1"),
        (BOTH, "0", None),
        ({"immediate": True, "cells": (0, 1), "nodes": frozenset((0, 1))}, "0", None),
        ({"immediate": True, "cells": (0,), "nodes": NODE_1}, "0", "1"),
        ({"immediate": True, "nodes": NODE_1, "mode": "strict"}, "0", "1"),
        ({"immediate": True, "nodes": NODE_1, "mode": "restrictive"}, "0", None),
        ({"hugepages": (NODE_0,), "nodes": NODE_1}, "0", "1"),  # There are no cells: those pages are for all.
        ({"nodes": NODE_1}, "0", None),
        ({"devices": (NODE_0, NODE_1)}, "0", "1"),
        ({"immediate": True}, "0", None),
    ],
)
def test_preallocated_memory_off_the_pin(memory: dict[str, Any], cpus: str, node: str | None) -> None:
    found = obstacle(cpuset.parse(cpus), guest(**memory), TWO_NODES)
    assert found == (
        f"libvirt 9.0.0 allocates the guest's memory on NUMA node {node} from a thread there, "
        f"and the pin {cpus} has no CPU on it"
        if node
        else None
    )
    assert obstacle(cpuset.parse(cpus), guest(**memory), TWO_NODES.replace(libvirt=RHEL_9_2)) is None


def test_numad_may_choose_any_node_next_time() -> None:
    automatic = guest(automatic=True, immediate=True)
    assert obstacle(frozenset((0,)), automatic, TWO_NODES) is None
    assert "NUMA node 1" in (risk(frozenset((0,)), automatic, TWO_NODES) or "")
    assert risk(frozenset((0, 4)), automatic, TWO_NODES) is None
    assert risk(frozenset((0,)), guest(automatic=True), TWO_NODES) is None


def test_a_planned_pin_that_is_not_startable_is_for_the_live_threads_only() -> None:
    rules, nfv = policy('"vcpu:0"'), guest(immediate=True, **BOTH)
    made = plan(nfv, rules, TWO_NODES)
    assert (made.cpus, made.pin, made.failed) == (frozenset((0,)), None, False)
    (warning,) = made.warnings
    assert warning.startswith("only the live threads are moved to 0: libvirt 9.0.0 allocates")
    fixed = plan(nfv, rules, TWO_NODES.replace(libvirt=DEBIAN_13))
    assert (fixed.cpus, fixed.pin, fixed.warnings) == (frozenset((0,)), frozenset((0,)), ())


def test_where_libvirt_prunes_the_nodes_allocation_is_slower() -> None:
    nfv, fixed = guest(immediate=True, **BOTH), TWO_NODES.replace(libvirt=DEBIAN_13)
    assert slows_allocation(frozenset((0,)), nfv, fixed) == (
        "its memory on NUMA node 1 is allocated by the emulator's CPU 0 alone, which may take longer"
    )
    assert slows_allocation(frozenset((0, 4)), nfv, fixed) is None
    assert slows_allocation(frozenset((0,)), guest(), fixed) is None
    assert slows_allocation(frozenset((0,)), nfv, TWO_NODES) is None


def test_a_definition_is_settled_by_its_own_plan() -> None:
    nfv, rules = guest().replace(emulatorpin=frozenset((4,))), policy('"vcpu:0"')
    settled = settle(nfv, plan(nfv, rules, TWO_NODES), TWO_NODES, {})
    assert (settled.leaving, settled.changes(nfv)) == ({}, {"emulator": frozenset((0,))})
    assert settled.changes(nfv.replace(emulatorpin=frozenset((0,)))) == {}


@pytest.mark.parametrize(
    ("placement", "iothreads", "removed"),
    [('"vcpu:7"', "follow", ("emulator", "1")), ('"vcpu:7"', "keep", ("emulator",)), ("keep", "follow", ())],
)
def test_an_impossible_pin_goes_where_the_rule_has_none_to_put_there(
    placement: str, iothreads: str, removed: tuple[str, ...]
) -> None:
    """Pins of iothreads that do not follow are somebody's, and stay."""
    absent = frozenset((99,))
    nfv = guest().replace(emulatorpin=absent, iothreadpins={1: absent, 2: frozenset((3,))})
    settled = settle(nfv, plan(nfv, policy(placement, f"iothreads: {iothreads}"), TWO_NODES), TWO_NODES, {})
    assert settled.changes(nfv) == dict.fromkeys(removed)
    assert set(settled.reasons) == set(removed)


@pytest.mark.parametrize(
    ("placement", "iothreads", "changes"),
    [
        ("vcpu:0", "keep", {"emulator": "0", "1": "2", "2": None}),
        ("vcpu:0", "follow", {"emulator": "0", "1": "0", "2": "0"}),
        ("vcpu:7", "keep", {"1": "2", "2": None}),
        ("keep", "keep", {}),
    ],
)
def test_iothreads_that_followed_once_get_back_what_stood_there_where_it_is_possible(
    placement: str, iothreads: str, changes: dict[str, str | None]
) -> None:
    four, stood = frozenset((4,)), {"1": frozenset((2,)), "2": frozenset((99,)), "emulator": frozenset((3,))}
    nfv = guest().replace(emulatorpin=four, iothreads=(1, 2), iothreadpins={1: four, 2: four})
    made = plan(nfv, policy(f'"{placement}"', f"iothreads: {iothreads}"), TWO_NODES)
    found = settle(nfv, made, TWO_NODES, stood).changes(nfv)
    assert {key: cpuset.text(cpus) for key, cpus in found.items()} == changes


def test_an_iothread_that_cannot_start_where_the_rule_has_it_follow() -> None:
    """Whatever the emulator threads have: it is emupin's to correct, with or without a pin to put there."""
    nfv = guest().replace(emulatorpin=NODE_0, iothreads=(1,), iothreadpins={1: frozenset((99,))})
    settled = settle(nfv, plan(nfv, policy('"vcpu:7"', "iothreads: follow"), TWO_NODES), TWO_NODES, {})
    assert (settled.changes(nfv), list(settled.reasons)) == ({"1": None}, ["1"])
    assert settled.reasons["1"] == "libvirt cannot start the guest with it: CPU 99 is not online"


def test_explain_says_what_becomes_of_a_pin_that_is_not_startable() -> None:
    nfv = guest(immediate=True, **BOTH).replace(emulatorpin=frozenset((4,)))
    text = render(explain(nfv, policy('"vcpu:0"'), TWO_NODES), "test", 200, False)
    assert "not recorded: libvirt could not start the guest with this pin" in text
    assert "libvirt cannot start the guest with the <emulatorpin> it has: libvirt 9.0.0 allocates" in text
    stuck = nfv.replace(iothreads=(2,), iothreadpins={2: frozenset((99,))})
    text = render(explain(stuck, policy('"vcpu:0"'), TWO_NODES), "test", 200, False)
    assert "libvirt cannot start the guest with the <iothreadpin> of iothread2 it has: CPU 99 is not online" in text
    text = render(explain(nfv, policy('"vcpu:0"'), TWO_NODES.replace(libvirt=DEBIAN_13)), "test", 200, False)
    assert "its memory on NUMA node 1 is allocated by the emulator's CPU 0 alone" in text
