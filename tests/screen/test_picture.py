"""Pictures of hosts, each beside what it should be in tests/pictures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trees
from decisions import held
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import hosts

from emupin.base import cpuset
from emupin.engine import snapshot
from emupin.engine.marks import Mark, marks
from emupin.screen.mark import MEANINGS, OWNERS, PARTS, cell
from emupin.screen.picture import draw

if TYPE_CHECKING:
    from conftest import Golden

    from emupin.engine.host import Host

PICTURES = Path(__file__).parent / "pictures"
RECORDED = sorted(path.stem for path in trees.FIXTURES.glob("*.json"))
COLOUR = re.compile("\x1b\\[[0-9;]*m")


def recorded(name: str) -> Host:
    return snapshot.load(str(trees.FIXTURES / f"{name}.json"))


def by_cpu(**owners: str) -> dict[int, str]:
    return {cpu: owner for owner, text in owners.items() for cpu in cpuset.parse(text)}


def zones(host: Host) -> dict[int, Mark]:
    """The first core of each node reserved, the second the pool."""
    firsts, seconds = (
        frozenset().union(*(sorted(of_node(host, node), key=min)[at] for node in host.nodes)) for at in (0, 1)
    )
    return marks(host, firsts, seconds)


def of_node(host: Host, node: int) -> list[frozenset[int]]:
    return [core for core in host.cores if host.node_of(min(core)) == node]


def guests(host: Host) -> dict[int, Mark]:
    """A guest of twelve vCPUs on six cores that loses its default pin, beside two others: the 256-CPU host."""
    pins = {vcpu: frozenset((4 + vcpu // 2 + vcpu % 2 * 128,)) for vcpu in range(12)}
    others = held(
        by_cpu(**{"77aa0011-0000": "20-27,148-155"}),
        by_cpu(**{"5a3f1d2c-0000": "2", "77aa0011-0000": "130"}),
        by_cpu(**{"77aa0011-0000": "20"}),
    )
    reserved, pool = cpuset.parse("0-1,128-129"), cpuset.parse("2-3,64-65,130-131,192-193")
    return marks(host, reserved, pool, others, pins, frozenset().union(*pins.values()), cpuset.parse("4"))


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", RECORDED)
def test_picture_of_a_host(golden: Golden, name: str, width: int) -> None:
    host = recorded(name)
    check(golden, f"{name}-{width}", draw(host, zones(host), width, False), width)


@pytest.mark.parametrize("width", [80, 200])
def test_picture_of_a_guest(golden: Golden, width: int) -> None:
    host = recorded("epyc-2x64-smt")
    check(golden, f"guest-{width}", draw(host, guests(host), width, False), width)


def test_picture_of_a_floating_guest_on_two_cpus(golden: Golden) -> None:
    host = recorded("vm-2")
    both, one = cpuset.parse("0-1"), cpuset.parse("1")
    pins = {0: cpuset.parse("0"), 1: both}
    check(golden, "floating-80", draw(host, marks(host, pool=one, pins=pins, before=both, after=one), 80, False), 80)


def check(golden: Golden, name: str, picture: str, width: int) -> None:
    assert max(map(len, picture.splitlines())) <= width
    golden(PICTURES / f"{name}.txt", picture.encode("ascii"))


@pytest.mark.parametrize("width", [80, 200])
def test_colour_changes_no_character(width: int) -> None:
    host = recorded("epyc-2x64-smt")
    coloured = draw(host, guests(host), width, True)
    assert "\x1b[1;32m4" not in coloured
    assert "\x1b[1;32m0=\x1b[0m" in coloured
    assert COLOUR.sub("", coloured) == draw(host, guests(host), width, False)


def test_no_symbol_means_two_things() -> None:
    symbols = [part(example) for example, part, _ in MEANINGS] + [symbol for symbol, _, _ in OWNERS]
    assert len(symbols) == len(set(symbols))
    assert not any(symbol.isdigit() for symbol in symbols)


owners = st.sampled_from(((), ("5a3f1d2c",), ("5a3f1d2c", "77aa0011")))
any_mark = st.builds(
    Mark, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(((), (0,), (12,), (0, 1))),
    owners, owners, owners, owners, owners, st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(hosts(), st.data(), st.integers(40, 250))
def test_every_symbol_is_explained_and_every_idle_core_counted(host: Host, data: st.DataObject, width: int) -> None:
    drawn = {cpu: data.draw(any_mark) for cpu in data.draw(st.sets(st.sampled_from(sorted(host.online)), max_size=6))}
    body, _, key = draw(host, drawn, width, False).rpartition("\n\n")
    used = {part(drawn.get(cpu, Mark())) for cpu in host.online for part in PARTS} - {""}
    explained = set(re.findall(r"(?:^|   )(\S)(?= )", key, re.MULTILINE))
    for symbols in used:
        assert symbols.isdigit() or set(symbols) <= explained
    counted = [int(number) for number in re.findall(r": (\d+) cores?, ", body)]
    assert sum(counted) == len(host.cores)


def test_a_cell_names_all_that_is_on_a_cpu() -> None:
    mark = Mark(isolated=True, pool=True, vcpus=(7,), interrupts=True, before=True, after=True)
    a, b = ("a",), ("b", "c")
    assert cell(replace(mark, foreign=a, floating=a, iothreads=b, dedicated=a, shared=b)) == "p7oft#~!="


def test_a_host_of_which_only_the_cpus_are_known() -> None:
    from emupin.engine.host import Host

    picture = draw(Host(online=cpuset.parse("0-5")), {}, 80, False)
    assert "CPUs of no known node: 6 cores, 6 CPUs" in picture
