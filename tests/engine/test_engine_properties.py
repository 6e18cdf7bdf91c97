"""What always holds of the engine: for any host, policy and guest, and for any sequence of what happens to guests."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from decisions import GuestXml, held, policy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from emupin.base import cpuset
from emupin.base.files import RUN
from emupin.engine import snapshot
from emupin.engine.checks import CHECKS
from emupin.engine.host import Host, to_json
from emupin.engine.plan import Plan, plan
from emupin.engine.situation import USES, Others, Situation, all_of, cpus_that_matter
from emupin.node.claims import PENDING_SECONDS, Ledger, to_mask
from emupin.policy.match import find_rule
from emupin.policy.values import ERROR, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypothesis.strategies import DrawFn

Cpus = frozenset[int]

CPUS = 12
"""Of every host here: few, so that guests meet."""

cpu_sets = st.frozensets(st.integers(0, CPUS - 1), min_size=1, max_size=5)
uuids = st.integers(1, 5).map(lambda number: str(uuid.UUID(int=number)))


@st.composite
def hosts(draw: DrawFn) -> Host:
    """Nodes and cores of any shape, some CPUs offline, some isolated."""
    online = draw(st.frozensets(st.integers(0, CPUS - 1), min_size=CPUS // 2))
    count = draw(st.integers(1, 3))
    home = {cpu: draw(st.integers(0, count - 1)) for cpu in sorted(online)}
    nodes = {node: frozenset(cpu for cpu in online if home[cpu] == node) for node in sorted(set(home.values()))}
    threads = draw(st.integers(1, 2))
    cores = [
        frozenset(ordered[start : start + threads])
        for ordered in map(sorted, nodes.values())
        for start in range(0, len(ordered), threads)
    ]
    isolated = draw(st.frozensets(st.integers(0, CPUS - 1), max_size=4))
    return Host(online, isolated, frozenset(), nodes, tuple(sorted(cores, key=min)), ())


@st.composite
def guests(draw: DrawFn, number: int = 0) -> GuestXml:
    pinned = {vcpu: cpuset.format(draw(cpu_sets)) for vcpu in range(4) if draw(st.integers(0, 5))}
    pin = draw(st.none() | cpu_sets)
    confined = f"cpuset='{cpuset.format(draw(cpu_sets))}'" if draw(st.integers(0, 3)) == 0 else ""
    current = f" current='{draw(st.integers(1, 3))}'" if draw(st.integers(0, 3)) == 0 else ""
    return GuestXml(
        pinned,
        cpuset.format(pin) if pin else None,
        4,
        draw(st.sampled_from(("", "", "1-2", "3"))),
        f"nfv-{number}",
        str(uuid.UUID(int=number)),
        confined + current,
    )


@st.composite
def policies(draw: DrawFn) -> Policy:
    words = ["auto", "dedicated", '"dedicated:2"', "pool", '"vcpu:0"', '"vcpu:3"']
    pool = draw(cpu_sets)
    words = [word for word in words if len(pool) > 1 or "2" not in word]
    placements = draw(st.lists(st.sampled_from(words), min_size=1, max_size=4, unique=True))
    reserved = draw(st.frozensets(st.integers(0, CPUS - 1), max_size=2)) - pool
    listed = draw(st.none() | cpu_sets)
    if listed and listed - reserved:
        placements.append(f'"cpus:{cpuset.format(listed - reserved)}"')
    adjustable = [name for name, check in CHECKS.items() if not check.fixed]
    levels = draw(st.dictionaries(st.sampled_from(adjustable), st.sampled_from(("error", "warn", "off"))))
    return policy(
        ", ".join(placements),
        f"guest: {draw(st.sampled_from(('dpdk', 'kernel')))}",
        ", ".join(f"{name}: {level}" for name, level in levels.items()),
        networking=draw(st.sampled_from(("ovs-dpdk", "kernel"))),
        pool=cpuset.format(pool),
        **({"reserved": cpuset.format(reserved)} if reserved else {}),
    )


@st.composite
def neighbours(draw: DrawFn) -> Others:
    by_cpu = st.dictionaries(st.integers(0, CPUS - 1), uuids, max_size=4)
    vcpus, dedicated, shared, floating, iothreads = (draw(by_cpu) for _ in range(5))
    return held(vcpus, dedicated, shared, draw(st.none() | cpu_sets), floating, iothreads)


def broken_checks(decided: Plan, situation: Situation) -> list[str]:
    levels, cpus = situation.rule.checks, decided.cpus or frozenset()
    situation = situation.replace(named=decided.attempts[-1].vcpus)
    return [name for name, check in CHECKS.items() if levels[name] == ERROR and check.complain(cpus, situation)]


@given(guests(), policies(), st.none() | hosts(), neighbours())
def test_no_decision_breaks_a_check(guest: GuestXml, rules: Policy, machine: Host | None, others: Others) -> None:
    decided = plan(guest.domain, rules, machine, others)
    situation = Situation(guest.domain, rules, rules.rules[0], machine, others)
    assert (decided.cpus is None) == decided.failed
    if decided.cpus is not None:
        assert decided.cpus
        assert broken_checks(decided, situation) == []
    if decided.cpus and decided.dedicated:
        assert decided.cpus <= (rules.pool or frozenset())
        assert decided.cpus.isdisjoint(all_of(others.vcpus, others.dedicated, others.shared))


@given(guests(), policies(), hosts(), neighbours())
def test_a_decision_is_a_function_of_what_is_recorded_of_it(
    guest: GuestXml, rules: Policy, machine: Host, others: Others
) -> None:
    """The guest's bytes, the policy's, the snapshot's, and of the others only what lies on CPUs that matter."""
    decided = plan(guest.domain, rules, machine, others)
    recorded = snapshot.parse(json.dumps(to_json(machine)).encode(), "snapshot").host
    assert recorded == machine
    matter = cpus_that_matter(guest.domain, rules, machine)
    kept = others.replace(**{use: among(getattr(others, use), matter) for use in USES})
    assert plan(guest.domain, Policy.from_plain(rules.to_plain()), shuffled(recorded), kept) == decided


def among(by_guest: Mapping[str, Cpus], cpus: Cpus) -> dict[str, Cpus]:
    """Of those CPUs only, and in another order."""
    return {uuid: by_guest[uuid] & cpus for uuid in reversed(list(by_guest)) if by_guest[uuid] & cpus}


def shuffled(machine: Host) -> Host:
    return machine.replace(nodes=dict(reversed(list(machine.nodes.items()))))


@st.composite
def small_guests(draw: DrawFn, number: int) -> GuestXml:
    """With few pins, so that most of them find a place; on CPUs of the pool, too."""
    pinned = {vcpu: draw(st.sampled_from("01678")) for vcpu in range(draw(st.integers(1, 2)))}
    pin = draw(st.none() | st.integers(6, 9).map(str))
    return GuestXml(pinned, pin, name=f"nfv-{number}", uuid=str(uuid.UUID(int=number)))


@st.composite
def scarce_policies(draw: DrawFn) -> Policy:
    """Most guests want a CPU of their own, and there are few."""
    placements = draw(st.sampled_from(("dedicated", 'dedicated, "vcpu:0"', '"dedicated:2", dedicated', "auto, pool")))
    numa = draw(st.sampled_from(("error", "warn")))
    pool = draw(st.sampled_from(("6-7", "6-8", "6-9")))
    return policy(placements, "guest: dpdk", f"numa: {numa}", networking="kernel", pool=pool)


# -- sequences --------------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """One guest: its definition, and what is really so while it runs."""

    guest: GuestXml
    pending: bool = False
    running: bool = False
    threads: Cpus | None = None
    """Where the emulator threads are; None for anywhere."""
    alone: bool = False
    """They were put there as the holder of dedicated CPUs."""


class Guests(RuleBasedStateMachine):
    """Guests of one host through all that libvirt, its users and bad luck do to them.

    A hook is modelled as what it does in order (decide and note, save, enforce) and may be killed between any two of
    them. After a save the ledger is what a hook of another process finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="emupin-"))
        (self.root / "run/libvirt/qemu").mkdir(parents=True)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Some of the time in any world, most of the time in one where guests compete."""
        tight = data.draw(st.integers(0, 3)) > 0
        self.host = Host(frozenset(range(CPUS))) if tight else data.draw(hosts())
        self.policy = data.draw(scarce_policies() if tight else policies())
        self.guests = small_guests if tight else guests
        self.lives = [Life(data.draw(self.guests(number))) for number in range(1, 4)]

    some = st.integers(0, 2)
    killed = st.sampled_from(("no", "no", "no", "before the save", "after the save"))

    # -- one hook -----------------------------------------------------------------------------------------------------

    def hook(self, life: Life, killed: str) -> Plan | None:
        """Decide and note; None where it was killed."""
        guest = life.guest.domain
        with Ledger(str(self.root), self.policy, self.host) as ledger:
            others = ledger.others(guest.uuid, cpus_that_matter(guest, self.policy, self.host))
            decided = plan(guest, self.policy, self.host, others)
            if decided.cpus is not None:
                found = find_rule(guest, self.policy, self.host.cores)
                assert found
                assert not broken_checks(decided, Situation(guest, self.policy, found, self.host, others))
            if killed == "before the save":
                return None
            assert guest.uuid
            if decided.cpus is None:
                ledger.release(guest.uuid)
            else:
                ledger.claim(guest.uuid, decided.cpus, decided.dedicated)
            ledger.save()
        return None if killed == "after the save" else decided

    def enforce(self, life: Life, decided: Plan | None) -> None:
        if decided and decided.cpus is not None:
            life.threads, life.alone = decided.cpus, decided.dedicated
            self.show_threads(life)

    # -- what libvirt's files and /proc say ---------------------------------------------------------------------------

    def status_path(self, life: Life) -> Path:
        return self.root / f"run/libvirt/qemu/{life.guest.name}.xml"

    def show_threads(self, life: Life) -> None:
        folder = self.root / f"proc/{self.pid(life)}"
        folder.mkdir(parents=True, exist_ok=True)
        cpus = cpuset.format(life.threads or self.host.online)
        (folder / "status").write_text(f"Name:\tqemu\nCpus_allowed_list:\t{cpus}\n")

    def pid(self, life: Life) -> int:
        return 1000 + self.lives.index(life)

    def write_status(self, life: Life) -> None:
        new = self.status_path(life).with_suffix(".new")
        new.write_text(life.guest.status.replace("999999999", str(self.pid(life))))
        new.rename(self.status_path(life))

    def end(self, life: Life) -> None:
        self.status_path(life).unlink(missing_ok=True)
        shutil.rmtree(self.root / f"proc/{self.pid(life)}", ignore_errors=True)
        life.running = life.pending = life.alone = False
        life.threads = None

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(number=some, killed=killed)
    def prepare(self, number: int, killed: str) -> None:
        life = self.lives[number]
        if not life.running:
            self.hook(life, killed)
            life.pending = True

    @rule(number=some)
    def start(self, number: int) -> None:
        """Without incident, but for the record."""
        if not self.lives[number].running:
            self.prepare(number, "no")
            self.launch(number)
            self.started(number, "no")

    @rule(number=some)
    def launch(self, number: int) -> None:
        """libvirt has pinned the emulator as the definition says, and written the status file."""
        life = self.lives[number]
        if life.pending:
            life.pending, life.running = False, True
            life.threads = life.guest.domain.emulatorpin
            self.show_threads(life)
            self.write_status(life)

    @rule(number=some, killed=killed)
    def started(self, number: int, killed: str) -> None:
        """The same for `reconnect`."""
        life = self.lives[number]
        if life.running:
            self.enforce(life, self.hook(life, killed))

    @rule(number=some)
    def record(self, number: int) -> None:
        """The live and the persistent definition get what the threads have."""
        life = self.lives[number]
        if life.running and life.threads:
            life.guest = replace(life.guest, emulatorpin=cpuset.format(life.threads))
            self.write_status(life)

    @rule(number=some)
    def stop(self, number: int) -> None:
        """Also a start that failed, of which libvirt tells."""
        life = self.lives[number]
        if life.running or life.pending:
            self.end(life)
            with Ledger(str(self.root), self.policy, self.host) as ledger:
                ledger.release(life.guest.uuid)
                ledger.save()

    @rule(number=some)
    def crash(self, number: int) -> None:
        """Or a stop whose hook is killed."""
        self.end(self.lives[number])

    @rule(number=some, data=st.data())
    def migrate_in(self, number: int, data: st.DataObject) -> None:
        """And nothing comes of it: it is cancelled, or the guest turns out to run here already."""
        life = self.lives[number]
        arrival = Life(data.draw(self.guests(number + 1))) if life.running else life
        self.hook(arrival, "no")

    @rule()
    def lose_the_ledger(self) -> None:
        (self.root / f".{RUN}/claims").unlink(missing_ok=True)

    @precondition(lambda self: (self.root / f".{RUN}/claims").exists())
    @rule()
    def wait(self) -> None:
        """Until every claim is as old as makes it end where nobody runs."""
        with Ledger(str(self.root), self.policy, self.host) as ledger:
            for owner, claim in ledger.claims.items():
                ledger.claims[owner] = claim.replace(since=claim.since - PENDING_SECONDS - 1)
            ledger.save()

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def no_dedicated_cpu_is_held_twice(self) -> None:
        taken: dict[int, str] = {}
        for life in getattr(self, "lives", []):
            for cpu in life.threads or () if life.running and life.alone else ():
                assert cpu not in taken, f"CPU {cpu}: {taken[cpu]} and {life.guest.name}"
                taken[cpu] = life.guest.name

    @invariant()
    def no_claims_contradict_each_other(self) -> None:
        """What one guest holds alone no other does, unless both are there and what told whose it is was lost."""
        if hasattr(self, "policy"):
            there = {each.guest.uuid: to_mask(each.threads or ()) for each in self.lives if each.running}
            with Ledger(str(self.root), self.policy, self.host) as ledger:
                alone = {owner: claim.cpus for owner, claim in ledger.claims.items() if claim.dedicated}
            for one, other in combinations(alone, 2):
                both = alone[one] & alone[other]
                assert not both & ~(there.get(one, 0) & there.get(other, 0))


TestGuests = Guests.TestCase
TestGuests.settings = settings(max_examples=120, stateful_step_count=20, deadline=None)
