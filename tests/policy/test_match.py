"""Which rule takes a guest."""

from __future__ import annotations

import fnmatch

import pytest
from hosts import domain_xml
from hypothesis import given
from hypothesis import strategies as st

from emupin.base import cpuset
from emupin.guest import domain, domainxml
from emupin.policy.match import fits, mismatch
from emupin.policy.values import Match

NOVA = """\
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:flavor name="nfv.large">
        <nova:extraSpecs>
          <nova:extraSpec name="hw:cpu_policy">dedicated</nova:extraSpec>
          <nova:extraSpec name="hw:emulator_threads_policy">isolate</nova:extraSpec>
        </nova:extraSpecs>
      </nova:flavor>
      <nova:owner><nova:project uuid="0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d">vnf</nova:project></nova:owner>
    </nova:instance>
  </metadata>
"""

POLICY = "hw:emulator_threads_policy"


def guest(extra: str = NOVA) -> domain.Domain:
    text = domain_xml(extra=extra).replace(
        "<graphics", "<interface type='vhostuser'/><interface type='bridge'/><graphics"
    )
    return domainxml.read(text.encode(), "test")


@given(st.text("ab*?[]!-^", max_size=8), st.text("ab]-![^*", max_size=6))
def test_patterns_fit_as_fnmatchcase_says(pattern: str, text: str) -> None:
    assert fits(text, pattern) == fnmatch.fnmatchcase(text, pattern)


def test_a_pattern_full_of_stars_takes_no_time() -> None:
    assert not fits("a" * 5000, "*a" * 30 + "b")


@pytest.mark.parametrize(
    ("match", "complaint"),
    [
        (Match(), None),
        (Match(name=("web-*", "nfv-*")), None),
        (Match(name=("web-*",)), "name is 'nfv-1', not web-*"),
        (Match(name=("NFV-*",)), "name is 'nfv-1', not NFV-*"),
        (Match(uuid=("5a3f*",)), None),
        (Match(uuid=("0*", "1*")), "uuid is '5a3f1d2c-7f0e-4c50-9a1b-0123456789ab', not 0* or 1*"),
        (Match(flavor=("nfv.*",)), None),
        (Match(project=("0c1d*",)), None),
        (Match(interface=("vhostuser",)), None),
        (Match(interface=("hostdev",)), "interface is 'bridge', 'vhostuser', not hostdev"),
        (Match(pinned=True), None),
        (Match(pinned=False), "pinned is true"),
        (Match(realtime=True), "realtime is false"),
        (Match(realtime=False), None),
        (Match(name=("nfv-*",), realtime=True), "realtime is false"),
        (Match(extra_specs={POLICY: ("isolate",), "hw:cpu_policy": ("mix*", "ded*")}), None),
        (Match(extra_specs={POLICY: ("share",)}), f"extra spec {POLICY} is 'isolate', not share"),
        (Match(extra_specs={"acme": ("x", "y")}), "extra spec acme is not there, not x or y"),
    ],
)
def test_every_field_of_a_match_must_hold(match: Match, complaint: str | None) -> None:
    assert mismatch(guest(), match, ()) == complaint


@pytest.mark.parametrize(
    ("cpus", "cores", "pinned"),
    [
        ("4", (), True),
        ("4,36", ("4,36", "5,37"), True),
        ("4-5", ("4,36", "5,37"), False),
        ("4,36-37", ("4,36", "5,37"), False),
        ("4,36", ("4", "5"), True),  # The sibling is offline.
        ("4,36", (), False),  # Where no core is known, it is one CPU.
        ("4,36", ("5,37",), False),
    ],
)
def test_a_vcpu_is_pinned_where_its_cpus_lie_within_one_core(cpus: str, cores: tuple[str, ...], pinned: bool) -> None:
    """`pinned: true` is for guests all of whose vCPUs are, by pins of their own or by the one for all."""
    known = tuple(map(cpuset.parse, cores))
    for text in (
        f"<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='{cpus}'/></cputune>",
        f"<vcpu cpuset='{cpus}'>1</vcpu>",
    ):
        one = domainxml.read(f"<domain><name>one</name>{text}</domain>".encode(), "test")
        assert mismatch(one, Match(pinned=pinned), known) is None
        assert mismatch(one, Match(pinned=not pinned), known) == f"pinned is {str(pinned).lower()}"


def test_a_guest_without_metadata_has_no_flavor() -> None:
    assert mismatch(guest(extra=""), Match(flavor=("*",)), ()) == "flavor is none, not *"
