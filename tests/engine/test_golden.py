"""Each domain XML in `fixtures/xml` against its expected rewriting, libvirt's schema and libvirt itself."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import AS_LIBVIRT
from lxml import etree

from emupin.base.errors import DomainError
from emupin.guest import domainxml, splice, xmltree

if TYPE_CHECKING:
    from conftest import Golden, Libvirt

FOLDER = Path(__file__).parents[2] / "fixtures" / "xml"
INPUTS = sorted(path for path in FOLDER.glob("*.xml") if not path.name.endswith(".out.xml"))
BAD = sorted((FOLDER / "bad").glob("*.xml"))

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
KNOWS_THEM_ALL = 9_000_000
"""The libvirt (9.0.0) that has every element of these documents."""
OUTSIDE_THE_SCHEMA = {  # as the tools write it, and as libvirt takes it: it validates only on request
    "blanks-in-list": "the schema knows no blanks in a CPU list; the parser does",
    "foreign-namespace": "the schema has no foreign elements in <cputune>; the parser passes over them",
    "foreign-namespace-cputune": "the schema has no foreign children of <domain>; the parser passes over them",
    "kubevirt": "the schema wants something in <bios>",
    "kubevirt-isolated": "the schema wants something in <bios>",
    "ovirt": "the schema has no source file='' of a CD-ROM, no type on a channel's <source>",
}


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def placed(data: bytes, name: str) -> bytes:
    """`data` with the emulator on the CPUs of vCPU 0's pin, on CPU 3 where that has none."""
    guest = domainxml.read(data, name)
    return splice.rewrite(data, guest, guest.vcpupins.get(0, frozenset((3,))))


def test_there_are_fixtures() -> None:
    assert len(INPUTS) > 50
    assert len(BAD) > 25
    assert not {path.stem[:-4] for path in FOLDER.glob("*.out.xml")} - {path.stem for path in INPUTS}


@named(INPUTS)
def test_rewriting(path: Path, golden: Golden) -> None:
    data = path.read_bytes()
    result = placed(data, path.name)
    golden(path.with_suffix(".out.xml"), None if result is data else result)
    assert placed(result, path.name) is result


@named(BAD)
def test_refusal(path: Path, golden: Golden) -> None:
    with pytest.raises(DomainError) as caught:
        domainxml.read(path.read_bytes(), path.name)
    golden(path.with_suffix(".err"), f"{caught.value}\n".encode())


def test_refusal_of_a_large_document() -> None:
    frame = b"<domain type='kvm'><name>large</name><description>%s</description></domain>"
    fits = frame % (b"x" * (xmltree.LARGEST - len(frame) + 2))
    assert len(fits) == xmltree.LARGEST
    assert domainxml.read(fits, "large.xml").name == "large"
    with pytest.raises(DomainError, match=r"large\.xml:1: larger than 16 MiB; "):
        domainxml.read(fits + b"\n", "large.xml")


@functools.cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(file=str(SCHEMA))


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed")
@named(INPUTS)
def test_schema(path: Path, libvirt: Libvirt) -> None:
    """Rewriting costs no validity; an older libvirt does not know all of it, before or after."""
    data = path.read_bytes()
    before, after = (schema().validate(etree.fromstring(each, AS_LIBVIRT)) for each in (data, placed(data, path.name)))
    assert before == after, str(schema().error_log)
    if libvirt.api.getVersion() >= KNOWS_THEM_ALL:
        assert after != (path.stem in OUTSIDE_THE_SCHEMA), str(schema().error_log)


@named(INPUTS)
def test_libvirt_prints_the_pin_in_the_same_place(path: Path, libvirt: Libvirt) -> None:
    """Rewriting what libvirt prints is what libvirt prints of the rewritten: defining the result moves nothing."""
    data = path.read_bytes()
    try:
        before = libvirt.printed(data)
    except ValueError as refused:
        if libvirt.api.getVersion() >= KNOWS_THEM_ALL:
            raise
        pytest.skip(f"this libvirt is too old for it: {refused}")
    after = libvirt.printed(placed(data, path.name))
    assert placed(before, path.name).decode() == after.decode()
