"""A rewriting changes the pin and nothing else, whatever the document looks like."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from lxml import etree

from emupin.base import cpuset
from emupin.guest import domainxml, splice

if TYPE_CHECKING:
    from conftest import Libvirt

PIN = rb"<emulatorpin cpuset=(?:'[0-9,-]+'|\"[0-9,-]+\")/>"
BLANK = rb"[ \t\r\n]*"
TUNE = rb"<cputune>" + BLANK + PIN + BLANK + rb"</cputune>"
INSERTED = re.compile(rb">?%s(?:%s|%s)%s(?:</cputune>|</domain>)?" % (BLANK, TUNE, PIN, BLANK))

some = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def rewritten(data: bytes, cpus: frozenset[int]) -> bytes:
    return splice.rewrite(data, domainxml.read(data, "x"), cpus)


def emulatorpins(data: bytes) -> list[str]:
    return [str(pin.get("cpuset")) for pin in etree.fromstring(data).findall("cputune/emulatorpin")]


def without_pin(data: bytes) -> bytes:
    """Canonical XML without the pin, without a `<cputune>` that then holds nothing, and without indentation."""
    root = copy.deepcopy(etree.fromstring(data))
    for pin in root.findall("cputune/emulatorpin"):
        remove(pin)
    for tune in root.findall("cputune"):
        if not len(tune) and not (tune.text or "").strip():
            remove(tune)
    for element in (root, *root, *(child for tune in root.findall("cputune") for child in tune)):
        element.tail = (element.tail or "").strip() or None
        if element.tag in ("domain", "cputune"):
            element.text = (element.text or "").strip() or None
    return bytes(etree.tostring(root.getroottree(), method="c14n", with_comments=True))


def remove(element: etree._Element) -> None:
    parent, previous = element.getparent(), element.getprevious()
    assert parent is not None
    if previous is not None:
        previous.tail = (previous.tail or "") + (element.tail or "")
    else:
        parent.text = (parent.text or "") + (element.tail or "")
    element.tail = None
    parent.remove(element)


def difference(before: bytes, after: bytes) -> tuple[bytes, bytes]:
    """What is left of both without their common start and end."""
    start = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
    end = 0
    while end < min(len(before), len(after)) - start and before[len(before) - end - 1] == after[len(after) - end - 1]:
        end += 1
    return before[start : len(before) - end], after[start : len(after) - end]


@some
@given(strategies.documents(), strategies.cpus)
def test_only_the_pin_changes(document: strategies.Document, cpus: frozenset[int]) -> None:
    guest = domainxml.read(document.data, "x")
    result = splice.rewrite(document.data, guest, cpus)
    again = domainxml.read(result, "x")
    assert again.emulatorpin == cpus
    assert again.replace(emulatorpin=None, layout=None) == guest.replace(emulatorpin=None, layout=None)
    assert without_pin(result) == without_pin(document.data)
    assert rewritten(result, cpus) is result
    if document.emulatorpin:
        assert len(difference(document.data, result)[0]) <= max(map(len, emulatorpins(document.data))) + 5
        assert not re.search(rb"[^0-9,-]", difference(document.data, result)[1])


@some
@given(strategies.documents(), strategies.cpus)
def test_insertion_is_one_piece(document: strategies.Document, cpus: frozenset[int]) -> None:
    """Exactly the layout's edit: no byte is removed, except the `/` of an empty element."""
    guest = domainxml.read(document.data, "x")
    result = splice.rewrite(document.data, guest, cpus)
    if guest.emulatorpin is None:
        assert len(emulatorpins(result)) == 1
        removed, _ = difference(document.data, result)
        assert removed in (b"", b"/", b"/>")
        assert any(INSERTED.fullmatch(piece) for piece in pieces(document.data, result))
    elif guest.emulatorpin == cpus:
        assert result is document.data


def pieces(before: bytes, after: bytes) -> list[bytes]:
    """Every piece of `after` that makes it of `before`, perhaps in place of a `/>`: several where ends are alike."""
    found = []
    for taken in (0, 2):
        length = len(after) - len(before) + taken
        for start in range(len(before) - taken + 1):
            fits = before[:start] + after[start : start + length] + before[start + taken :] == after
            if fits and before[start : start + taken] in (b"", b"/>"):
                found.append(after[start : start + length])
    return found


@some
@given(strategies.documents(), strategies.cpus)
def test_readers_agree_on_the_pin(document: strategies.Document, cpus: frozenset[int]) -> None:
    result = rewritten(document.data, cpus)
    (pin,) = emulatorpins(result)
    assert cpuset.parse(pin) == cpus == domainxml.read(result, "x").emulatorpin


@settings(some, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(document=strategies.documents(), cpus=strategies.cpus)
def test_libvirt_moves_nothing(libvirt: Libvirt, document: strategies.Document, cpus: frozenset[int]) -> None:
    """Rewriting what libvirt prints is what libvirt prints of the rewritten."""
    before, after = libvirt.printed(document.data), libvirt.printed(rewritten(document.data, cpus))
    assert rewritten(before, cpus) == after


def test_edits_apply_in_the_order_of_the_document() -> None:
    edits = [splice.Edit(4, 5, b"five"), splice.Edit(0, 1, b"one"), splice.Edit(2, 2, b"more")]
    assert splice.apply(b"12345", edits) == b"one2more34five"


def test_value_is_found_among_other_attributes() -> None:
    tag = b"""<a xcpuset='1' b="cpuset='2'" x:cpuset = '3'\n\tcpuset\n= "4" c='5'/>"""
    start, end = splice.attribute_value(tag, 0, b"cpuset")
    assert tag[start:end] == b"4"


NEIGHBOURS = {
    "its own": ("<domain type='kvm'><cputune><vcpupin vcpu=\"0\" cpuset='1'/></cputune></domain>", '"3"'),
    "its own, behind others": (
        "<domain type='kvm'><cputune><shares a='1'>9</shares><vcpupin vcpu=\"0\" cpuset=\"1\"/></cputune></domain>",
        '"3"',
    ),
    "the domain's": ('<domain type="kvm"><cputune><shares>9</shares></cputune></domain>', '"3"'),
    "libvirt's": ("<domain><cputune/></domain>", "'3'"),
}


@pytest.mark.parametrize(("text", "value"), NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_quotes_of_a_new_pin(text: str, value: str) -> None:
    assert f"<emulatorpin cpuset={value}/>".encode() in rewritten(text.encode(), frozenset((3,)))


@pytest.mark.parametrize(
    ("inside", "left"),
    [
        ("\n  <vcpupin/>\n  <emulatorpin cpuset='2'/>\n", "\n  <vcpupin/>\n"),
        ("\r\n  <emulatorpin cpuset='2'></emulatorpin> <!-- x -->\r\n", " <!-- x -->\r\n"),
        ('<emulatorpin cpuset = "2" /><shares>1</shares>', "<shares>1</shares>"),
        ("<shares>1</shares>", "<shares>1</shares>"),
    ],
)
def test_a_pin_is_taken_out_with_its_line_and_nothing_else(inside: str, left: str) -> None:
    """One that libvirt cannot start the guest with."""
    vcpupin = "<vcpupin vcpu='0' cpuset='1'/>"
    frame = "<domain type='kvm'><name>x</name><vcpu>1</vcpu><cputune>{}</cputune></domain>"
    data = frame.format(inside.replace("<vcpupin/>", vcpupin)).encode()
    taken_out = splice.apply(data, splice.give_way(data, domainxml.read(data, "test"), {"emulator": None}))
    assert taken_out.decode() == frame.format(left.replace("<vcpupin/>", vcpupin))


def test_pins_of_iothreads_give_way_by_their_numbers() -> None:
    pins = "<emulatorpin cpuset='1'/><iothreadpin iothread='1' cpuset='1'/><iothreadpin iothread='2' cpuset='2'/>"
    data = f"<domain><name>x</name><iothreads>2</iothreads><cputune>{pins}</cputune></domain>".encode()
    left = splice.apply(data, splice.give_way(data, domainxml.read(data, "test"), {"2": None, "7": None}))
    assert left == data.replace(b"<iothreadpin iothread='2' cpuset='2'/>", b"")
    back = splice.give_way(data, domainxml.read(data, "test"), {"2": frozenset((3, 4))})
    assert splice.apply(data, back) == data.replace(b"cpuset='2'", b"cpuset='3-4'")
