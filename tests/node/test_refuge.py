"""Where a guest goes whose pin is on CPUs that another guest has alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from decisions import UUID, GuestXml, pins, policy
from hosts import Host

from emupin.node.decision import decide
from emupin.node.refuge import refuge


@pytest.mark.parametrize(
    ("pool", "vcpu_attributes", "expected"),
    [
        ("8-11", "", set(range(16)) - {2, 3, 4, 15, *range(8, 12)}),
        ("0-14", "", set(range(16)) - {2, 3, 4, 15}),  # All there is.
        ("4-14", "cpuset='2-4'", {4}),  # The pool rather than its own vCPUs.
        ("4-14", "cpuset='2-3'", {2}),  # The CPU of vCPU 0 rather than that of vCPU 1.
    ],
)
def test_off_the_pool_and_off_vcpus_where_it_can_be(
    tmp_path: Path, pool: str, vcpu_attributes: str, expected: set[int]
) -> None:
    host, root = Host(tmp_path), str(tmp_path)
    rules = policy("keep", pool=pool, reserved="15")
    guest = GuestXml(pins(2, 3), uuid=UUID, vcpu_attributes=vcpu_attributes)
    others = GuestXml(pins(4), name="other", uuid=UUID.replace("5a", "7e"))
    host.write("run/libvirt/qemu/other.xml", others.status if not vcpu_attributes else "<domstatus/>")
    decision = decide(root, rules, guest.text.encode(), "nfv-1", ())
    assert refuge(root, decision) == expected
