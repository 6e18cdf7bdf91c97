"""The second opinion: it must accept what a rewrite does and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import AFTER, BEFORE, emupin, environment, guest, make_root

from emupin.base.errors import EmupinError
from emupin.fleet.validation import SCHEMA, validate

PIN = frozenset({4})
NO_SCHEMA = "/nowhere/domain.rng"
SMALL_SCHEMA = """\
<element name="domain" xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
  <attribute name="type"/>
  <element name="name"><data type="string"><param name="pattern">[a-z0-9-]+</param></data></element>
  <element name="vcpu"><text/></element>
  <element name="cputune">
    <oneOrMore><element name="vcpupin"><attribute name="vcpu"/><attribute name="cpuset"/></element></oneOrMore>
    <optional><element name="emulatorpin"><attribute name="cpuset"/></element></optional>
  </element>
</element>
"""

CPUTUNE = b"<cputune><vcpupin vcpu='0' cpuset='4'/></cputune>"


def changed(data: bytes) -> bytes:
    return data.replace(BEFORE, AFTER)


@pytest.fixture
def schema(tmp_path: Path) -> str:
    path = tmp_path / "small.rng"
    path.write_text(SMALL_SCHEMA)
    return str(path)


def test_accepts_names_that_libvirt_takes_and_canonical_xml_does_not() -> None:
    """Relative namespaces (every guest of Unraid), prefixes that stand for nothing, namespaces with blanks."""
    inside = (
        b"<metadata><vmtemplate xmlns='unraid' name='x'/><a:b xmlns:a='http://x/ y'><c:d c:e='1'/></a:b></metadata>"
    )
    before = guest().replace(b"<vcpu", inside + b"<vcpu", 1)
    assert inside in before
    validate(before, changed(before), PIN, "guest", NO_SCHEMA)
    with pytest.raises(EmupinError, match="differs from the original in more than"):
        validate(before, changed(before).replace(b"c:e='1'", b"c:e='2'"), PIN, "guest", NO_SCHEMA)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (guest(), changed(guest())),
        (guest().replace(BEFORE, b""), changed(guest())),
        (b"<domain><vcpu/></domain>", b"<domain><vcpu/><cputune><emulatorpin cpuset='4'/></cputune></domain>"),
        (b"<domain><cputune/></domain>", b"<domain><cputune><emulatorpin cpuset='4'/></cputune></domain>"),
        (
            b"<domain>\n <vcpu/>\n <os/>\n</domain>",
            b"<domain>\n <vcpu/>\n <cputune>\n  <emulatorpin cpuset='4'/>\n </cputune>\n <os/>\n</domain>",
        ),
    ],
)
def test_accepts(before: bytes, after: bytes) -> None:
    assert validate(before, after, PIN, "guest", NO_SCHEMA) == [
        f"guest: not checked against libvirt's schema, {NO_SCHEMA} is not installed"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"nfv-1", b"nfv-2"),
        (b"vcpu='0'", b"vcpu='2'"),
        (b"<cputune>", b"<cputune><!-- new -->"),
        (b"<vcpu>2</vcpu>", b"<vcpu>2</vcpu><emulatorpin cpuset='4'/>"),
        (b"<vcpu>2</vcpu>", b"<vcpu>2 </vcpu>"),
        (b"<vcpupin vcpu='1' cpuset='5'/>", b""),
        (b"</domain>", b"</domain><!-- new -->"),
        (b"</cputune>", b"stray</cputune>"),
    ],
)
def test_refuses_any_other_difference(old: bytes, new: bytes) -> None:
    with pytest.raises(EmupinError, match="differs from the original in more than <emulatorpin>"):
        validate(guest(), changed(guest()).replace(old, new), PIN, "guest", NO_SCHEMA)


@pytest.mark.parametrize("pin", [b"", b"<emulatorpin cpuset='5'/>", AFTER + AFTER])
def test_refuses_a_pin_that_was_not_decided(pin: bytes) -> None:
    with pytest.raises(EmupinError, match="not to 4"):
        validate(guest(), guest().replace(BEFORE, pin), PIN, "guest", NO_SCHEMA)


def test_schema(schema: str) -> None:
    assert validate(guest(), changed(guest()), PIN, "guest", schema) == []
    (remark,) = validate(guest("UPPER"), changed(guest("UPPER")), PIN, "guest", schema)
    assert remark.startswith("guest: was not valid by libvirt's schema before either: ")
    with pytest.raises(EmupinError, match="the result is not valid"):
        validate(guest(), changed(guest("UPPER")), PIN, "guest", schema)


def test_file_that_is_no_schema(tmp_path: Path) -> None:
    (tmp_path / "bad.rng").write_text("<no/>")
    with pytest.raises(EmupinError, match="is not a schema"):
        validate(guest(), changed(guest()), PIN, "guest", str(tmp_path / "bad.rng"))


def test_option(tmp_path: Path) -> None:
    done = emupin(make_root(tmp_path / "root"), "rewrite", "--validate", data=guest())
    assert (done.returncode, done.stdout) == (0, changed(guest()))
    if Path(SCHEMA).exists():
        assert done.stderr == b""
    else:
        assert b"not checked against libvirt's schema" in done.stderr


def test_option_without_lxml(tmp_path: Path) -> None:
    script = "import sys; sys.modules.update({'lxml': None}); from emupin.cli import main; sys.exit(main())"
    env = environment(make_root(tmp_path / "root"))
    command = [sys.executable, "-c", script, "rewrite", "--validate"]
    done = subprocess.run(command, input=guest(), capture_output=True, env=env, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"python3-lxml" in done.stderr
