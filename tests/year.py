"""A made-up year: guests come and go on recorded hosts, and what the engine decides goes into audit trails.

The decisions, the entries and the files are the real ones; only hosts, guests and times are made up.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisions import GuestXml, held
from trees import FIXTURES

from emupin.base.jsonline import encode
from emupin.base.kept import POLICIES_KEPT, TOPOLOGIES_KEPT, keep
from emupin.engine import snapshot
from emupin.engine.host import canonical
from emupin.engine.plan import plan
from emupin.engine.situation import Others, vcpu_cpus
from emupin.grammar.policyfile import compile_policy
from emupin.guest import domainxml, splice
from emupin.node.decision import Decision
from emupin.trail import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy

    Decide = Callable[[Domain, Policy, Host, Others], Plan]

HOSTS = ("xeon-2x16-interleaved", "xeon-2x32-smt", "epyc-1x64-smt", "xeon-2x32-no-smt", "xeon-2x16-offline-isolated")

POLICIES = (
    """\
version: 1
host: {networking: ovs-dpdk, reserved: "0-1", pool: "2-5"}
rules:
  - name: nfv
    match: {name: "nfv-*", pinned: true}
    placement: [auto, pool]
    guest: dpdk
  - name: routers
    match: {name: "router-*"}
    placement: [dedicated, pool, "vcpu:0"]
    checks: {numa: error}
  - name: keepers
    match: {name: "db-*"}
    placement: keep
""",
    """\
version: 1
host: {networking: kernel, reserved: "0", pool: "1-7"}
defaults: {on_failure: refuse}
rules:
  - name: nfv
    match: {name: ["nfv-*", "router-*"]}
    placement: [auto, "cpus:8-11"]
    guest: kernel
    checks: {isolated: warn, smt: warn, vcpu_overlap: error}
  - name: rest
    match: {realtime: false}
    placement: ["dedicated:2", pool]
""",
)

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ODD_NAMES = ("nfv-<script>alert(1)</script>", "nfv-</script><!--", "router-\u202eevil\u0007", "nfv-&amp;\"'")


@dataclass
class MadeHost:
    """One host over the year."""

    name: str
    policy: Policy
    source: bytes
    host: Host
    random: random.Random
    running: dict[str, GuestXml] = field(default_factory=dict)
    claims: dict[str, tuple[frozenset[int], bool]] = field(default_factory=dict)
    history: dict[str, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def make(cls, number: int, seed: int) -> MadeHost:
        dice = random.Random(seed * 1_000_003 + number)
        source = POLICIES[number % len(POLICIES)].encode()
        facts = snapshot.load(str(FIXTURES / f"{HOSTS[number % len(HOSTS)]}.json"))
        return cls(f"compute-{number:04}", compile_policy(source, "policy.yaml"), source, facts, dice)

    def keep(self, root: Path) -> None:
        keep(str(root), POLICIES_KEPT, f"{self.policy.digest}.yaml", self.source)
        keep(str(root), TOPOLOGIES_KEPT, f"{self.topology}.json", canonical(self.host))

    @property
    def topology(self) -> str:
        return hashlib.sha256(canonical(self.host)).hexdigest()

    def entries(self, count: int, decide: Decide = plan) -> Iterator[dict[str, Any]]:
        """So many entries, spread over the year."""
        for number in range(count):
            entry = self.event(decide)
            moment = START + timedelta(days=365) * (number / count)
            yield {**entry, "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "host": self.name}

    def event(self, decide: Decide) -> dict[str, Any]:
        kind = self.random.random()
        if kind < 0.02:
            return entries.failure(
                "prepare", "failed", "nfv-broken", None, "domain XML of nfv-broken:3: not well-formed"
            )
        if self.running and (kind < 0.3 or len(self.running) > 12):
            self.stop()
        if self.running and kind > 0.7:
            guest = self.running[self.random.choice(sorted(self.running))]
            return self.decide(self.random.choice(("started", "reconnect", "attach")), guest, decide)
        return self.decide(self.random.choice(("prepare", "prepare", "migrate", "restore")), self.guest(), decide)

    def stop(self) -> None:
        uuid = self.random.choice(sorted(self.running))
        del self.running[uuid]
        claim = self.claims.pop(uuid, None)
        if claim:
            self.history[uuid] = claim[0]

    def guest(self) -> GuestXml:
        dice = self.random
        uuid = f"{dice.randrange(40):08x}-0000-4000-8000-{dice.randrange(3):012x}"
        node = sorted(dice.choice(list(self.host.nodes.values())))
        count = dice.choice((2, 4, 4, 8))
        first = dice.randrange(max(1, len(node) - count))
        cpus = node[first : first + count]
        pins = {vcpu: str(cpu) for vcpu, cpu in enumerate(cpus) if dice.random() < 0.98}
        name = dice.choice(("nfv", "nfv", "router", "db", "web")) + f"-{uuid[:8]}"
        pin = dice.choice((None, f"{cpus[0]}-{cpus[-1]}", str(cpus[0]), ",".join(map(str, cpus))))
        realtime = "1" if dice.random() < 0.1 else ""
        odd = dice.choice(ODD_NAMES) if dice.random() < 0.02 else name
        return GuestXml(pins, pin, count, realtime, _escape(odd), uuid)

    def others(self, uuid: str) -> Others:
        vcpus: dict[int, str] = {}
        dedicated: dict[int, str] = {}
        shared: dict[int, str] = {}
        for owner, guest in self.running.items():
            if owner != uuid:
                for cpu in vcpu_cpus(guest.domain):
                    vcpus.setdefault(cpu, owner)
        for owner, (cpus, alone) in self.claims.items():
            if owner != uuid:
                (dedicated if alone else shared).update(dict.fromkeys(cpus, owner))
        mine = self.claims.get(uuid)
        return held(vcpus, dedicated, shared, mine[0] if mine else self.history.get(uuid))

    def decide(self, operation: str, guest: GuestXml, decide: Decide) -> dict[str, Any]:
        data = guest.text.encode("utf-8", "xmlcharrefreplace")
        facts = domainxml.read(data, guest.name, self.policy.sections())
        others = self.others(guest.uuid)
        decided = decide(facts, self.policy, self.host, others)
        self.running[guest.uuid] = guest
        self.claims.pop(guest.uuid, None)
        if decided.cpus is not None:
            self.claims[guest.uuid] = decided.cpus, decided.dedicated
        problems = ("policy.yaml: is not valid",) if self.random.random() < 0.01 else ()
        decision = Decision(data, facts, self.host, self.topology, others, self.policy, decided, problems)
        if decided.failed or self.random.random() < 0.01:
            outcome = "refused" if decided.on_failure == "refuse" else "failed"
            return entries.failure(operation, outcome, guest.name, decision, f"guest {guest.name}: {decided.reason}")
        edits = [] if decided.cpus is None else splice.edits(data, facts, decided.cpus, decided.follow_iothreads)
        if operation in ("started", "reconnect", "attach"):
            return entries.entry(operation, "enforced" if edits else "unchanged", decision, [])
        return entries.entry(operation, "rewritten" if edits else "unchanged", decision, edits)


def _escape(name: str) -> str:
    name = "".join(character if character >= " " else "?" for character in name)
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_host(root: Path, number: int, count: int, seed: int = 1, decide: Decide = plan) -> Path:
    """The root folder of host `number` with a trail of `count` entries and what it refers to; the trail's path."""
    made = MadeHost.make(number, seed)
    made.keep(root)
    path = root / "var/log/emupin/audit.jsonl"
    path.parent.mkdir(parents=True)
    previous = None
    with path.open("wb") as file:
        for entry in made.entries(count, decide):
            line = encode({**entry, "previous": previous}).encode() + b"\n"
            previous = hashlib.sha256(line).hexdigest()
            file.write(line)
    (root / "var/lib/emupin/audit-head").write_text(f"{previous}\n")
    return path


def write_fleet(folder: Path, hosts: int, entries: int, seed: int = 1) -> Path:
    """A folder with the roots of `hosts` hosts, which have `entries` entries together."""
    for number in range(hosts):
        write_host(folder / f"{number:04}", number, entries // hosts + (number < entries % hosts), seed)
    return folder
