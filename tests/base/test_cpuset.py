"""CPU lists, against a plain model of libvirt's parser and against libvirt itself."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import pytest
import strategies
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emupin.base import cpuset
from emupin.guest import domainxml

if TYPE_CHECKING:
    from conftest import Libvirt

READ = {
    "0": {0},
    "16383": {16383},
    "0-3": {0, 1, 2, 3},
    "0-3,^2": {0, 1, 3},
    "^2,0-3": {0, 1, 2, 3},
    "3,1,2": {1, 2, 3},
    "5-5": {5},
    "007": {7},
    "0000000000000008": {8},
    " 4 , 6 - 8,^7 ": {4, 6, 8},
    "4,": {4},
    "4, ": {4},
    "4,^9": {4},
    "\n1\t-\n2": {1, 2},
}
REFUSED = {
    "": "a part of the list is empty",
    " ": "a part of the list is empty",
    ",": "a part of the list is empty",
    ",1": "a part of the list is empty",
    "1,,2": "a part of the list is empty",
    "1,,": "a part of the list is empty",
    "all": "'all' is neither N, N-M nor ^N",
    "1-": "'1-' is neither N, N-M nor ^N",
    "-1": "'-1' is neither N, N-M nor ^N",
    "1-2-3": "'1-2-3' is neither N, N-M nor ^N",
    "1 2": "'1 2' is neither N, N-M nor ^N",
    "0x1": "'0x1' is neither N, N-M nor ^N",
    "+1": "'+1' is neither N, N-M nor ^N",
    "٣": "'٣' is neither N, N-M nor ^N",
    "²": "'²' is neither N, N-M nor ^N",
    "0-3,^": "'^' is neither N, N-M nor ^N",
    "0-3,^ 2": "'^ 2' is neither N, N-M nor ^N",
    "0-3,^1-2": "'^1-2' is neither N, N-M nor ^N",
    "0-3,^^1": "'^^1' is neither N, N-M nor ^N",
    "3-1": "'3-1' runs backwards",
    "2,^2": "'2,^2' leaves no CPU at all",
    "^2": "'^2' leaves no CPU at all",
    "16384": "CPU 16384 is above 16383, the highest that libvirt accepts",
    "0-16384": "CPU 16384 is above 16383, the highest that libvirt accepts",
    "1,^16384": "CPU 16384 is above 16383, the highest that libvirt accepts",
    "99999999999999999999999999": "CPU 99999999999999999999 is above 16383, the highest that libvirt accepts",
}

PARTS = ("0", "1", "3", "17", "^1", "^3", "0-3", "2-2", "3-1", " 5", "6 ", "1 - 4", "16383", "16384", "", "x")
any_list = st.text("0123456789,-^ \t\n", max_size=12) | st.lists(st.sampled_from(PARTS), max_size=6).map(",".join)


@pytest.mark.parametrize(("text", "cpus"), READ.items(), ids=map(repr, READ))
def test_parse(text: str, cpus: set[int]) -> None:
    assert cpuset.parse(text) == cpus


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=map(repr, REFUSED))
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(cpuset.CpuListError) as caught:
        cpuset.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "\n", " \n"])
def test_an_empty_kernel_file_names_no_cpu(text: str) -> None:
    assert cpuset.parse_kernel(text) == frozenset()


def test_kernel_file() -> None:
    assert cpuset.parse_kernel("2-3,8\n") == {2, 3, 8}


@given(strategies.cpus)
def test_format_is_read_back(cpus: frozenset[int]) -> None:
    assert cpuset.parse(cpuset.format(cpus)) == cpus


@given(strategies.cpus)
def test_format_merges_and_sorts(cpus: frozenset[int]) -> None:
    """Between two runs there is a gap, within one there is none."""
    runs = [[int(cpu) for cpu in run.split("-")] for run in cpuset.format(cpus).split(",")]
    assert all(len(run) == 1 or run[0] < run[1] for run in runs)
    assert all(before[-1] + 1 < after[0] for before, after in zip(runs, runs[1:]))


@pytest.mark.parametrize(("cpus", "text"), [((), ""), ((8,), "8"), ((1, 0), "0-1"), ((3, 0, 1, 8, 2), "0-3,8")])
def test_format(cpus: tuple[int, ...], text: str) -> None:
    assert cpuset.format(cpus) == text


def model(text: str) -> frozenset[int] | None:
    """libvirt's virBitmapParse, step by step as its C does it; None where it, or its caller, refuses.

    Left out: `strtol` takes a sign behind the dash, so that libvirt reads `0-+5` as `0-5`; emupin refuses that.
    """
    cpus: set[int] = set()
    position = skip(text, 0)
    if position == len(text):
        return None
    while position < len(text):
        exclude = text[position] == "^"
        position += exclude
        start, position = strtol(text, position)
        if start is None:
            return None
        position = skip(text, position)
        last: int | None = start
        if text[position : position + 1] == "-":
            if exclude:
                return None
            last, position = strtol(text, skip(text, position + 1))
            position = skip(text, position)
        if last is None or last < start or last > cpuset.HIGHEST:
            return None
        cpus = cpus - {start} if exclude else cpus.union(range(start, last + 1))
        if position < len(text) and text[position] != ",":
            return None
        position = skip(text, position + 1)
    return frozenset(cpus) or None


def skip(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\n"):
        position += 1
    return position


def strtol(text: str, position: int) -> tuple[int | None, int]:
    end = position
    while text[end : end + 1] in tuple("0123456789"):
        end += 1
    return (int(text[position:end]) if end > position else None), end


def parsed(text: str) -> frozenset[int] | None:
    try:
        return cpuset.parse(text)
    except cpuset.CpuListError:
        return None


@settings(max_examples=500)
@given(any_list)
@example("1,")
@example("1 ,")
@example("1,^1")
def test_parse_agrees_with_the_model(text: str) -> None:
    assert parsed(text) == model(text)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=any_list)
@example(text="0-16383")
@example(text="1,")
def test_parse_agrees_with_libvirt(libvirt: Libvirt, text: str) -> None:
    value = quoteattr(text)
    data = (
        "<domain type='kvm'><name>x</name><memory>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        f"<cputune><emulatorpin cpuset={value}/></cputune></domain>"
    )
    try:
        theirs = domainxml.read(libvirt.printed(data.encode()), "libvirt").emulatorpin
    except ValueError:
        theirs = None
    assert parsed(text) == theirs


@given(strategies.cpus.flatmap(lambda cpus: st.tuples(st.just(cpus), strategies.lists(cpus))))
def test_every_way_to_write_a_set(case: tuple[frozenset[int], str]) -> None:
    cpus, text = case
    assert cpuset.parse(text) == cpus == model(text)
