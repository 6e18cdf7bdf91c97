"""The persistent definition gets the plan that the hook would make of it: from the same facts."""

from __future__ import annotations

from pathlib import Path

import pytest
from decisions import ANOTHER, GuestXml, pins, policy_text
from hosts import Host

from emupin.base import cpuset
from emupin.guest import domainxml
from emupin.node import store
from emupin.node.definition import settle_definition

NFV = 'match: {name: "nfv-*"}'
PINNED = GuestXml(pins(1, 2, 3))
CORE = GuestXml(pins("4,12"), name="other", uuid=ANOTHER)
"""Its vCPU is pinned: 4 and 12 are siblings."""
FLOATING = GuestXml(vcpus=1, name="other", uuid=ANOTHER)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.write("sys/devices/system/cpu/isolated", "5-6\n")
    for cpu in range(16):
        host.write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 8},{cpu % 8 + 8}\n")
    host.write("sys/class/net/eth0/device/msi_irqs/55", "msix\n")
    host.write("proc/irq/55/effective_affinity_list", "5\n")
    return host


@pytest.mark.parametrize(
    ("policy", "other", "expected"),
    [
        (policy_text("pool", NFV, pool="4-7"), None, "4,6-7"),
        (policy_text('"cpus:5", "cpus:6"', NFV, checks="interrupts: error"), None, "6"),
        (policy_text('"cpus:4", "cpus:6"', NFV), CORE, "6"),
        (policy_text('dedicated, "cpus:9"', NFV, pool="5-6", checks="floating: error"), FLOATING, "6"),
    ],
    ids=["interrupts", "interrupts are an error", "a core of another guest's", "isolated CPUs"],
)
def test_it_is_the_hooks_own(host: Host, policy: str, other: GuestXml | None, expected: str) -> None:
    host.set_policy(policy)
    if other:
        host.write(f"run/libvirt/qemu/{other.name}.xml", other.status)
    assert host.call("prepare", PINNED.text).status == 0
    assert host.audit()[-1]["after"] == expected
    found = store.find(str(host.root)).policy
    assert found
    guest = domainxml.read(PINNED.text.encode(), "definition", found.sections())
    assert cpuset.text(settle_definition(str(host.root), found, guest).plan.pin) == expected
