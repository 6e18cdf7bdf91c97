"""Which rule takes a guest."""

from __future__ import annotations

import fnmatch

import pytest
from hosts import domain_xml
from hypothesis import given
from hypothesis import strategies as st

from emupin.guest import domain, domainxml
from emupin.policy.match import fits, mismatch
from emupin.policy.values import Match

NOVA = """\
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:flavor name="nfv.large"/>
      <nova:owner><nova:project uuid="0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d">vnf</nova:project></nova:owner>
    </nova:instance>
  </metadata>
"""


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
    ],
)
def test_every_field_of_a_match_must_hold(match: Match, complaint: str | None) -> None:
    assert mismatch(guest(), match, ()) == complaint


def test_a_guest_without_metadata_has_no_flavor() -> None:
    assert mismatch(guest(extra=""), Match(flavor=("*",)), ()) == "flavor is none, not *"
