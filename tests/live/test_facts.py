"""A recorded host stands for the machine: its guests are judged there as they are judged here."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import emupin
from guests import Machine
from hosts import DEDICATED, UUID, Host, domain_xml

from emupin.engine.plan import plan
from emupin.guest import domainxml
from emupin.live.facts import read_facts
from emupin.node import store

OTHER = UUID.replace("5a", "7e")


@pytest.mark.parametrize(("vhost", "cpu"), [("", 9), ("    vhost: [dedicated]\n", 10)])
def test_a_running_guest_keeps_what_it_has(tmp_path: Path, vhost: str, cpu: int) -> None:
    """Its workers too, where lower CPUs have become free, and what another guest's threads have come to since."""
    host, first = Host(tmp_path / "root"), domain_xml("nfv-0", uuid=OTHER)
    host.set_policy(DEDICATED + vhost)
    host.call("prepare", first, "nfv-0")
    host.call("prepare", domain_xml())
    host.call("release", first, "nfv-0")
    Machine(host, pin=str(cpu), group=str(cpu), stored=str(cpu))
    if not vhost:  # An orchestrator's, which no rule takes.
        Machine(host, "web", OTHER, 5000, "8-11", "8-11", "8-11", 12)
    recorded = tmp_path / "host.json"
    assert emupin(host.root, "host", "--snapshot", "-o", recorded).returncode == 0

    policy = store.find(str(host.root)).policy
    assert policy
    guest = domainxml.read(domain_xml(emulatorpin=str(cpu)).encode(), "nfv-1")
    here, there = read_facts(str(host.root), policy), read_facts(str(recorded), policy)
    plans = [plan(guest, policy, facts.host, facts.others(guest)) for facts in (here, there)]
    assert plans[0] == plans[1]
    assert (plans[0].cpus, plans[0].vhost) == (frozenset((cpu,)), frozenset((cpu + 1,)) if vhost else None)
