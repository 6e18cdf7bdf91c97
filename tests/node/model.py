"""A host in random trouble, and an oracle that watches who shares which CPU.

On demand: `python tests/node/model.py [CALLS [SEED]]`; the tests run a short form.

Every call is the real hook, `apply` or recording process in a process of its own, below a root folder with the files of
a kernel without cpuset cgroups and of libvirt. The kernel and libvirt are pretended: what sets an affinity, starts the
recording process or speaks to libvirt ends here. A call may be killed (SIGKILL) ahead of any of its file operations.

The oracle knows nothing of claims. It sees what a kernel sees: which emulator thread may run where, who put it there,
and when. A guest has CPUs *alone* where emupin put its threads on CPUs that the policy in force dedicates. Then

- no other guest's emulator thread may run there, and
- none of its own pinned vCPUs 1 and above may, nor did another guest's pinned vCPU when it was put there.

What it allows, and why:

- A thread that nobody has confined, and which may run on every CPU: it is everywhere, and no CPU would ever be free.
- A thread that libvirt (a start with the pin of an old definition, or with the XML of a call that was killed), or a
  hand (virsh, taskset) put there *after* the guest had the CPU alone. libvirt asks nobody before it starts one. What
  counts is that emupin gives nobody a CPU on which such a thread is, and puts no thread where somebody is alone. Who
  was moved away by a hand, and is put back, has the CPU since it was given it.
- What a guest had alone and now shares by a decision of its own, though its threads need not move for it.
- What is left of "alone" when the ledger was lost: a guest keeps it whose threads are together where the policy in
  force would have dedicated so many CPUs to it. Nothing on the host tells it of any other.
- Another guest's vCPU that arrives later: orchestrators do not know of emupin.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from emupin import hook, order, recording
from emupin.base import cpuset
from emupin.grammar.policyfile import compile_policy
from emupin.live import alignment, applying
from emupin.node import adoption, decision, enforce, oldbook, refuge, store

Cpus = frozenset[int]


CPUS = frozenset(range(16))
POOL = frozenset(range(8, 13))
NAMES = ("nfv-0", "nfv-1", "nfv-2", "pair-3", "web-4", "web-5", "fix-6", "any-7")
EMULATOR, WORKER, VHOST, VCPU = 0, 1, 2, 10
"""Threads of a guest by what is added to its process id; a vCPU's by its number more."""

POLICIES: dict[str, dict[str, str]] = {
    "tight": {"nfv-*": "dedicated", "pair-*": "dedicated:2", "web-*": "pool", "fix-*": "cpus:9,12"},
    "falls back": {"nfv-*": "dedicated vcpu:0", "pair-*": "dedicated", "web-*": "pool", "fix-*": "cpus:12"},
    "shared": {"nfv-*": "pool", "pair-*": "pool", "web-*": "dedicated vcpu:0", "fix-*": "cpus:8-9"},
    "few": {"nfv-0": "dedicated", "web-*": "pool", "*": "keep"},
    "vcpu": {"*": "vcpu:0"},
    "apart": {
        "nfv-*": "dedicated / dedicated",
        "pair-*": "vcpu:0 / dedicated:2",
        "web-*": "pool / dedicated",
        "*": "pool",
    },
    "half": {"nfv-*": "dedicated / pool", "pair-*": "pool / pool", "web-*": "dedicated:2 vcpu:0 / vcpu:0", "*": "keep"},
}
"""Placements by name: the rules of each policy, those of vhost workers behind a stroke.

No side has both `dedicated` and `pool`: where threads are tells which.
"""


def policy_json(name: str, refuse: bool, pool: Cpus) -> str:
    rules: list[dict[str, Any]] = []
    for pattern, placements in POLICIES[name].items():
        own, _, vhost = placements.partition(" / ")
        rules.append({"name": f"rule-{len(rules)}", "match": {"name": pattern}, "placement": own.split()})
        if vhost:
            rules[-1]["vhost"] = vhost.split()
    defaults = {"on_failure": "refuse" if refuse else "start"}
    return json.dumps({"version": 1, "host": {"pool": cpuset.format(pool)}, "defaults": defaults, "rules": rules})


@dataclass
class Thread:
    """Where a thread may run, and how it came there."""

    cpus: Cpus
    by: str = "libvirt"
    """libvirt, hand, or emupin."""
    since: int = 0
    """The number of the event."""
    alone: bool = False


@dataclass
class Guest:
    number: int
    name: str
    pins: dict[int, str]
    """Of the vCPUs; one that is not in it runs where `cpuset` says."""
    cpuset: str | None
    vcpus: int
    plugged: int
    pin: str | None
    """Of the persistent definition."""
    vhost: bool
    """It has a vhost worker, which is a thread of its process (Linux 6.4)."""
    live_pin: str | None = None
    pending: bool = False
    running: bool = False
    runs: int = 0
    threads: dict[int, Thread] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    """The CPUs that it was given alone last, each with the event since which it has them, or is to have them again."""

    @property
    def uuid(self) -> str:
        return f"{self.number:08x}-0000-4000-8000-000000000000"

    @property
    def pid(self) -> int:
        return 1000 * (self.number + 1) + self.runs % 10 * 100

    @property
    def emulators(self) -> dict[int, Thread]:
        return {tid: thread for tid, thread in self.threads.items() if tid - self.pid < VCPU}

    @property
    def alone(self) -> dict[int, int]:
        """The CPUs that it has alone, each with the event since which it was given them."""
        return {cpu: self.given[cpu] for thread in self.emulators.values() if thread.alone for cpu in thread.cpus}

    @property
    def workers(self) -> list[Thread]:
        """Of vhost."""
        return [self.threads[self.pid + VHOST]] if self.vhost and self.threads else []

    @property
    def others(self) -> list[Thread]:
        """The emulator threads without those."""
        return [thread for tid, thread in self.emulators.items() if tid != self.pid + VHOST]

    @property
    def workers_go_along(self) -> bool:
        """They are where the others are, which share that."""
        alone = any(thread.alone for thread in self.others)
        return not alone and any(thread.cpus == together(self.others) for thread in self.workers)

    def share(self, threads: list[Thread]) -> None:
        """These have nothing alone."""
        for thread in threads:
            thread.alone = False
        self._take_stock({})

    def put(self, tid: int, cpus: Cpus, alone: bool, now: int) -> None:
        """emupin has put a thread there; where some were already, the guest has what it was promised since then."""
        there = {cpu: [each.since for each in self.emulators.values() if cpu in each.cpus] for cpu in cpus}
        self.threads[tid] = Thread(cpus, "emupin", now, alone)
        self._take_stock({cpu: min(since, default=now) for cpu, since in there.items()})

    def _take_stock(self, since: Mapping[int, int]) -> None:
        kept = together(thread for thread in self.emulators.values() if thread.alone)
        self.given = {cpu: self.given.get(cpu, since.get(cpu, 0)) for cpu in kept}

    def xml(self, pin: str | None, live: bool = False) -> str:
        tunes = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>" for vcpu, cpus in sorted(self.pins.items()))
        tunes += f"<emulatorpin cpuset='{pin}'/>" if pin else ""
        identity = f" id='{self.runs}'" if live else ""
        confined = f" cpuset='{self.cpuset}'" if self.cpuset else ""
        current = f" current='{self.plugged}'" if self.plugged < self.vcpus else ""
        return (
            f"<domain type='kvm'{identity}>\n  <name>{self.name}</name>\n  <uuid>{self.uuid}</uuid>\n"
            f"  <vcpu placement='static'{confined}{current}>{self.vcpus}</vcpu>\n"
            f"  <cputune>\n    {tunes}\n  </cputune>\n</domain>\n"
        )

    def vcpu_allowed(self, vcpu: int) -> Cpus:
        text = self.pins.get(vcpu, self.cpuset)
        return cpuset.parse(text) if text else CPUS


def together(threads: Iterable[Thread]) -> Cpus:
    return frozenset().union(*(thread.cpus for thread in threads))


class ViolationError(Exception):
    """Two guests share what one of them has alone."""


class World:
    """The host, its guests, and the oracle's view of them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.guests = [self._born(number, name) for number, name in enumerate(NAMES)]
        self.now = 0
        """The number of the event."""
        self.clock = 0.0
        """Seconds that time was turned on."""
        self.counts: Counter[str] = Counter()
        self.orders: list[dict[str, Any]] = []
        self.version = 0
        self.history: list[str] = []
        self.boot = 0
        self.ledger_lost, self.lost_ledger = False, 0
        for guest in self.guests:
            self.write(f"etc/libvirt/qemu/{guest.name}.xml", guest.xml(guest.pin))
        self._boot_files()
        self.set_policy("tight", False, POOL)

    def _born(self, number: int, name: str) -> Guest:
        first = self.chance.randrange(0, 7)
        kind = self.chance.randrange(4)
        pins = {0: str(first), 1: str(first + 1)}
        confined = None
        if kind == 1:
            confined = self.chance.choice((f"{first}-{first + 1}", "9", "11", "8-12"))
            pins = {0: str(first)}
        if kind == 2:
            confined = self.chance.choice(("10", "4-5", "11-12", "8-12"))
        if confined == "8-12" and self.chance.random() < 0.5:
            pins = {}
        pin = self.chance.choice((None, None, f"{first}-{first + 1}", "8", "9-10"))
        plugged, vhost = self.chance.choice((1, 2)) if kind == 1 else 2, self.chance.random() < 0.7
        return Guest(number, name, pins, confined, 2, plugged, pin, vhost)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        try:
            file.write_text(text)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if path.startswith("etc/emupin"):
            file.chmod(0o600)

    def _boot_files(self) -> None:
        self.boot += 1
        self.write("sys/devices/system/cpu/online", cpuset.format(CPUS) + "\n")
        self.write("sys/devices/system/cpu/isolated", "\n")
        self.write("proc/sys/kernel/random/boot_id", f"f1d2d2f9-0000-4000-8000-{self.boot:012}\n")
        self.write("proc/self/mountinfo", "23 1 254:0 / / rw - ext4 /dev/vda rw\n")
        (self.root / "run/libvirt/qemu").mkdir(parents=True, exist_ok=True)

    def set_policy(self, name: str, refuse: bool, pool: Cpus) -> None:
        self.policy_name = name
        text = policy_json(name, refuse, pool)
        self.policy, self.pool = compile_policy(text.encode(), "policy.json"), pool
        self.write("etc/emupin/policy.json", text)

    # -- what the kernel and libvirt show ------------------------------------------------------------------------------

    def launch(self, guest: Guest, pin: str | None) -> None:
        """libvirt puts the threads where the XML says, then writes the status file."""
        guest.pending, guest.running, guest.runs, guest.live_pin = False, True, guest.runs + 1, pin
        start = cpuset.parse(pin or guest.cpuset or cpuset.format(CPUS))
        for offset in (EMULATOR, WORKER, *([VHOST] if guest.vhost else [])):
            guest.threads[guest.pid + offset] = Thread(start, since=self.now)
        for vcpu in range(guest.plugged):
            guest.threads[guest.pid + VCPU + vcpu] = Thread(guest.vcpu_allowed(vcpu), since=self.now)
        self.write(f"proc/{guest.pid}/cmdline", f"qemu-system-x86_64\0-uuid\0{guest.uuid}\0")
        self.write(f"proc/{guest.pid}/cgroup", "4:cpu:/machine/emulator\n")
        (self.root / f"proc/{guest.pid}/fd").mkdir(exist_ok=True)
        for tid in guest.threads:
            self.show(guest, tid)
        self.write_status(guest)

    def show(self, guest: Guest, tid: int) -> None:
        offset = tid - guest.pid
        names = {EMULATOR: "qemu-system-x86", WORKER: "vnc_worker", VHOST: f"vhost-{guest.pid}"}
        name = names.get(offset, f"CPU {offset - VCPU}/KVM")
        group = "emulator" if offset < VCPU else f"vcpu{offset - VCPU}"
        listed = cpuset.format(guest.threads[tid].cpus)
        text = f"Name:\t{name}\nPid:\t{tid}\nCpus_allowed_list:\t{listed}\nMems_allowed_list:\t0\n"
        for base in (f"proc/{guest.pid}/task/{tid}", *([f"proc/{tid}"] if offset == EMULATOR else [])):
            self.write(f"{base}/status", text)
            self.write(f"{base}/cgroup", f"4:cpu:/machine/{group}\n")

    def write_status(self, guest: Guest) -> None:
        vcpus = "".join(f"<vcpu id='{at}' pid='{guest.pid + VCPU + at}'/>" for at in range(guest.plugged))
        head = f"<domstatus state='running' reason='booted' pid='{guest.pid}'>\n<vcpus>{vcpus}</vcpus>\n"
        path = self.root / f"run/libvirt/qemu/{guest.name}.xml"
        new = path.with_suffix(".new")
        new.write_text(head + guest.xml(guest.live_pin, live=True) + "</domstatus>\n")
        new.rename(path)

    def end(self, guest: Guest) -> None:
        (self.root / f"run/libvirt/qemu/{guest.name}.xml").unlink(missing_ok=True)
        shutil.rmtree(self.root / f"proc/{guest.pid}", ignore_errors=True)
        guest.running = guest.pending = False
        guest.threads.clear()
        guest.given.clear()

    # -- one call ------------------------------------------------------------------------------------------------------

    def call(self, what: str, guest: Guest, data: str, body: Callable[[], Any], killable: bool = True) -> bytes | None:
        """Run `body` in a process of its own, with `data` on stdin; its stdout, None where it was killed."""
        kill_at = self.chance.randrange(1, 45) if killable and self.chance.random() < 0.18 else 0
        output, log = self.root / "stdout", self.root / "kernel.log"
        log.write_text("")
        pid = os.fork()
        if not pid:
            _child(self, data, output, log, kill_at, body)
        status = os.waitpid(pid, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self.counts["calls"] += 1
        self.counts["killed"] += killed
        if self.ledger_lost:
            self._forget_who_was_alone()
            self.ledger_lost = self._ledger() == self.lost_ledger
        self.history.append(f"{self.now} {what} {guest.name}{' killed' if killed else ''}")
        if not killed and status:
            raise ViolationError(
                f"{what} of {guest.name} ended with status {status}: {(self.root / 'crash').read_text()}"
            )
        self._take_over(log.read_text(), what.startswith("record"))
        for each in self.guests if what == "apply" else [guest]:
            if each.alone and (killed or self._succeeded(each)):
                self._share_by_decision(each)
        self.check()
        return None if killed else output.read_bytes()

    def _share_by_decision(self, guest: Guest) -> None:
        """Workers go with the other threads where no place of their own is to be had."""
        if self.placement(guest) in ("pool", "cpus", "vcpu"):
            guest.share(guest.others)
        if guest.workers_go_along or self.placement(guest, VHOST) in ("pool", "cpus", "vcpu"):
            guest.share(guest.workers)

    def _take_over(self, log: str, records: bool) -> None:
        """What the process did to threads and definitions, and what it left behind to be recorded.

        Who only records decides nothing: a guest has alone what it was given before.
        """
        for line in log.splitlines():
            kind, *words = json.loads(line)
            if kind == "thread":
                tid, cpus, flees = words
                guest = next(each for each in self.guests if tid in each.threads)
                alone = len(cpus) == self.dedicates(guest, tid - guest.pid) and self.pool.issuperset(cpus) and not flees
                if records:
                    alone = guest.given.keys() >= set(cpus)
                guest.put(tid, frozenset(cpus), alone, self.now)
            elif kind == "order":
                self.orders.append(words[0])
            elif kind in ("live", "stored"):
                guest = next(each for each in self.guests if each.uuid == words[0])
                if kind == "live":
                    guest.live_pin = words[1]
                    self.write_status(guest)
                else:
                    guest.pin = words[1]
                    self.write(f"etc/libvirt/qemu/{guest.name}.xml", guest.xml(guest.pin))

    def dedicates(self, guest: Guest, offset: int = EMULATOR) -> int:
        """How many CPUs the policy in force gives alone to such a thread of the guest."""
        return {"dedicated": 1, "dedicated:2": 2}.get(self._first(guest, offset), 0)

    def placement(self, guest: Guest, offset: int = EMULATOR) -> str:
        """The word of the first placement that the policy in force has for such a thread of the guest."""
        return self._first(guest, offset).partition(":")[0]

    def _rule(self, guest: Guest) -> str:
        rules = POLICIES[self.policy_name].items()
        return next((placements for pattern, placements in rules if fnmatchcase(guest.name, pattern)), "keep")

    def _first(self, guest: Guest, offset: int) -> str:
        own, _, vhost = self._rule(guest).partition(" / ")
        return (vhost if vhost and offset == VHOST else own).split()[0]

    def _succeeded(self, guest: Guest) -> bool:
        """Whether the last decision for the guest came to something, as the audit trail has it."""
        with (self.root / "var/log/emupin/audit.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200_000))
            lines = [line for line in file if guest.uuid.encode() in line.partition(b'"facts"')[0]]
        return bool(lines) and json.loads(lines[-1])["outcome"] not in ("failed", "refused")

    def _forget_who_was_alone(self) -> None:
        for guest in self.guests:
            threads = list(guest.emulators.values())
            apart = " / " in self._rule(guest)
            for each, offset in ((guest.others, EMULATOR), (guest.workers, VHOST)) if apart else ((threads, EMULATOR),):
                cpus = together(each)
                if len(cpus) != self.dedicates(guest, offset) or not cpus <= self.pool:
                    guest.share(each)
            if guest.workers_go_along:
                guest.share(guest.workers)

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        for guest in self.guests:
            for cpu, since in guest.alone.items():
                for other in self.guests:
                    if other is not guest:
                        self._check_emulators(guest, cpu, since, other)
                self._check_vcpus(guest, cpu, since)

    def _check_emulators(self, guest: Guest, cpu: int, since: int, other: Guest) -> None:
        for tid, thread in other.emulators.items():
            if cpu in thread.cpus and thread.cpus != CPUS and (thread.by == "emupin" or thread.since < since):
                raise ViolationError(
                    f"CPU {cpu} is {guest.name}'s alone since {since}, and thread {tid} of {other.name} may run on "
                    f"{cpuset.format(thread.cpus)} since {thread.since}, put there by {thread.by}"
                )

    def _check_vcpus(self, guest: Guest, cpu: int, since: int) -> None:
        for other in self.guests:
            for tid, thread in other.threads.items():
                vcpu = tid - other.pid - VCPU
                pinned = vcpu >= 0 and thread.cpus == {cpu}
                if pinned and ((vcpu and other is guest) or thread.since < since):
                    raise ViolationError(
                        f"CPU {cpu} is {guest.name}'s alone, and vCPU {vcpu} of {other.name} runs there"
                    )

    # -- events --------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.now += 1
        event = self.chance.choices(*EVENTS)[0]
        guest = self.chance.choice(self.guests)
        self.history.append(f"{self.now} - {event.__name__} {guest.name}")
        event(self, guest)

    def hook(self, operation: str, guest: Guest, data: str, killable: bool = True) -> bytes | None:
        def body() -> None:
            call = hook.Call("0", guest.name, operation)
            hook.run(call)
            if call.last_act:
                call.last_act()

        return self.call(operation, guest, data, body, killable)

    def hook_live(self, operation: str, guest: Guest) -> None:
        self.hook(operation, guest, guest.xml(guest.live_pin, live=True))

    def start(self, guest: Guest) -> None:
        """All of it, or as far as it gets."""
        if guest.running:
            return
        self.prepare(guest)
        if guest.pending and self.chance.random() < 0.9:
            self.go_on(guest)

    def prepare(self, guest: Guest) -> None:
        if not guest.running:
            self.hook("prepare", guest, guest.xml(guest.pin))
            guest.pending, guest.live_pin = True, guest.pin

    def go_on(self, guest: Guest) -> None:
        """The start that `prepare` began goes on, or fails, and libvirt tells of it or dies itself."""
        if not guest.pending:
            return
        if self.chance.random() < 0.1:
            guest.pending = False
            if self.chance.random() < 0.7:
                self.hook("release", guest, guest.xml(guest.pin))
            return
        self.launch(guest, guest.live_pin)
        if self.chance.random() < 0.9:
            self.hook_live("started", guest)

    def arrive(self, guest: Guest) -> None:
        """By migration or from a saved image; it starts with what the filter prints, and maybe comes to nothing."""
        if guest.running:
            return
        operation = self.chance.choice(("migrate", "restore"))
        pin = self.chance.choice((guest.pin, "8", "9", "10-11", None))
        output = self.hook(operation, guest, guest.xml(pin))
        if output:
            pin = output.decode().partition("<emulatorpin cpuset='")[2].partition("'")[0] or None
        if self.chance.random() < 0.15:
            return  # Cancelled.
        self.hook("prepare", guest, guest.xml(pin))
        guest.pending, guest.live_pin = True, pin
        self.go_on(guest)

    def migrate_here(self, guest: Guest) -> None:
        """libvirt asks the filter before it finds out that the guest runs here."""
        if guest.running:
            self.hook("migrate", guest, guest.xml(self.chance.choice((guest.pin, "8"))))

    def reconnect(self, guest: Guest) -> None:
        if guest.running:
            self.hook_live("reconnect", guest)

    def restart_libvirt(self, _guest: Guest) -> None:
        for guest in self.guests:
            self.reconnect(guest)

    def stop(self, guest: Guest) -> None:
        if guest.running:
            data = guest.xml(guest.live_pin, live=True)
            self.end(guest)
            if self.chance.random() < 0.85:
                self.hook("release", guest, data)

    def apply(self, guest: Guest) -> None:
        """One guest, running or shut off, or all."""
        names = [guest.name] if self.chance.random() < 0.7 else list(NAMES)

        def body() -> None:
            means = applying.Means(os.sched_setaffinity, lambda root, one: _record(self, root, one))
            list(applying.apply(alignment.Request(str(self.root), self.policy), names, means))

        self.call("apply", guest, "", body)

    def record(self, _guest: Guest) -> None:
        """An order of the hook's is carried out at last, or again; most are at once."""
        if not self.orders:
            return
        at = self.chance.choice((-1, -1, -1, 0, self.chance.randrange(len(self.orders))))
        words = self.orders.pop(at)
        del self.orders[:-40]
        guest = next(each for each in self.guests if each.uuid == words["uuid"])
        cpus = cpuset.parse(words["cpus"]) if words["cpus"] else None
        carried_out = order.Order(**{**words, "cpus": cpus})
        self.call(
            f"record {words['domain_id']} {words['cpus']}",
            guest,
            "",
            lambda: _record(self, str(self.root), carried_out),
        )

    def plug(self, guest: Guest) -> None:
        if guest.plugged < guest.vcpus:
            if guest.running:
                tid = guest.pid + VCPU + guest.plugged
                guest.threads[tid] = Thread(guest.vcpu_allowed(guest.plugged), since=self.now)
                self.show(guest, tid)
            guest.plugged += 1
            if guest.running:
                self.write_status(guest)
                self.check()

    def unplug(self, guest: Guest) -> None:
        if not guest.running and not guest.pending and guest.vcpus > len(guest.pins):
            guest.plugged = 1

    def touch(self, guest: Guest) -> None:
        """libvirt rewrites the status file: a device came, a job ended."""
        if guest.running:
            self.write_status(guest)

    def hand(self, guest: Guest) -> None:
        """`virsh emulatorpin --live`, which moves the main thread alone, or taskset on some or all threads."""
        if not guest.running:
            return
        cpus = frozenset(self.chance.sample(sorted(CPUS), self.chance.choice((1, 1, 2))))
        if self.chance.random() < 0.5:
            guest.live_pin = cpuset.format(cpus)
            moved = [guest.pid]
            self.write_status(guest)
        else:
            moved = self.chance.choice(([guest.pid], [guest.pid + WORKER], list(guest.emulators)))
        for tid in moved:
            guest.threads[tid] = Thread(cpus, "hand", self.now)
            self.show(guest, tid)

    def redefine(self, guest: Guest) -> None:
        if not guest.running and not guest.pending:
            guest.pin = self.chance.choice((None, "8", "9", "10", "8-12", "3-4"))
            self.write(f"etc/libvirt/qemu/{guest.name}.xml", guest.xml(guest.pin))

    def change_policy(self, _guest: Guest) -> None:
        pool = self.chance.choice((POOL, POOL, POOL, POOL - {8}, frozenset((8, 9))))
        self.set_policy(self.chance.choice(list(POLICIES)), self.chance.random() < 0.2, pool)
        self.history.append(f"  policy {self.policy_name}, pool {cpuset.format(pool)}")

    def lose_the_ledger(self, _guest: Guest) -> None:
        path = self.root / "run/emupin/claims"
        if path.exists() and self.chance.random() < 0.5:
            data = path.read_bytes()
            path.write_bytes(data[: self.chance.randrange(len(data) or 1)])
        else:
            path.unlink(missing_ok=True)
        self.ledger_lost, self.lost_ledger = True, self._ledger()

    def _ledger(self) -> int:
        """Which file it is; 0 for none."""
        path = self.root / "run/emupin/claims"
        return path.stat().st_mtime_ns if path.exists() else 0

    def upgrade(self, _guest: Guest) -> None:
        """Another version of emupin, maybe under another Python: see `_child`."""
        self.version += 1

    def wait(self, _guest: Guest) -> None:
        self.clock += self.chance.choice((10.0, 1000.0))

    def reboot(self, _guest: Guest) -> None:
        for guest in self.guests:
            self.end(guest)
        shutil.rmtree(self.root / "run")
        shutil.rmtree(self.root / "var", ignore_errors=True)  # Nothing of it decides, and a trail of all grows large.
        self.orders.clear()
        self._boot_files()


WEIGHTS: dict[Callable[[World, Guest], None], float] = {
    World.start: 14, World.prepare: 3, World.go_on: 6, World.arrive: 6, World.migrate_here: 1, World.reconnect: 6,
    World.restart_libvirt: 1, World.stop: 9, World.apply: 3, World.record: 14, World.plug: 2, World.unplug: 2,
    World.touch: 3, World.hand: 2, World.redefine: 2, World.change_policy: 2, World.lose_the_ledger: 1.5,
    World.upgrade: 1, World.wait: 1.5, World.reboot: 0.3,
}  # fmt: skip
EVENTS = list(WEIGHTS), list(WEIGHTS.values())


# -- inside a call's process ------------------------------------------------------------------------------------------


def _child(world: World, data: str, output: Path, log: Path, kill_at: int, body: Callable[[], Any]) -> None:
    """Never returns."""
    try:
        stdin = os.memfd_create("stdin")
        os.write(stdin, data.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ["EMUPIN_ROOT"] = str(world.root)
        _pretend(world, log)
        if kill_at:
            _kill_at(kill_at)
        body()
    except BaseException:  # noqa: BLE001 - the parent reports it
        (world.root / "crash").write_text(traceback.format_exc())
        os._exit(70)
    os._exit(0)


ON_FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "fcntl.flock")
_pretending = False


def _kill_at(count: int) -> None:
    """End this process ahead of its next so many file operations."""
    left = count

    def on_event(event: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ON_FILES and not _pretending:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)


def _pretend(world: World, log: Path) -> None:
    """The kernel's and libvirt's part of what a call does, noted for the parent."""

    def note(*words: Any) -> None:
        with log.open("a") as file:
            file.write(json.dumps(words) + "\n")

    flees, move_away = False, refuge.move_away

    def flee(root: str, decision: decision.Decision) -> str:
        """A guest without a placement leaves what others have: it has nothing alone by that."""
        nonlocal flees
        flees = True
        return move_away(root, decision)

    def move(tid: int, cpus: Cpus) -> None:
        global _pretending
        _pretending = True
        guest = next((each for each in world.guests if tid in each.threads), None)
        if guest is None:
            raise ProcessLookupError(3, "No such process")
        guest.threads[tid] = Thread(frozenset(cpus))
        world.show(guest, tid)
        note("thread", tid, sorted(cpus), flees)
        _pretending = False

    def start(*_: Any) -> None:
        global _pretending
        _pretending = True
        for place in sorted((world.root / "run/emupin/orders").iterdir()):
            if "." not in place.name:
                note("order", json.loads(place.read_bytes()))
                place.unlink()
        _pretending = False

    clock = time.clock_gettime
    os.sched_setaffinity = move  # type: ignore[assignment]
    order._start = start  # type: ignore[assignment]
    refuge.move_away = flee
    time.clock_gettime = lambda which: clock(which) + world.clock
    for module in (hook, recording):
        module.os.sched_setaffinity = move
    for name in ("emupin", "emupin.trail.entries"):
        vars(sys.modules[name])["__version__"] = f"0.2.{world.version}"
    sys.modules["libvirt"] = _libvirt(world, note)


class FakeError(Exception):
    """libvirt's, for a guest that is not there."""

    def get_error_code(self) -> int:
        return 42


class FakeConnection:
    """What the recording process asks of libvirt: of one guest, once it has looked it up."""

    def __init__(self, world: World, note: Callable[..., None]) -> None:
        self.world, self.note = world, note

    def lookupByUUIDString(self, uuid: str) -> FakeConnection:  # noqa: N802
        self.guest = next(each for each in self.world.guests if each.uuid == uuid)
        return self

    def state(self) -> tuple[int, int]:
        return 1, 0

    def controlInfo(self) -> list[int]:  # noqa: N802
        return [0]

    def jobInfo(self) -> list[int]:  # noqa: N802
        return [0]

    def ID(self) -> int:  # noqa: N802
        return self.guest.runs if self.guest.running else -1

    def isPersistent(self) -> bool:  # noqa: N802
        return True

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        return self.guest.xml(self.guest.pin) if flags & 2 else self.guest.xml(self.guest.live_pin, live=True)

    def pinEmulator(self, cpus: tuple[bool, ...], flags: int) -> None:  # noqa: N802
        wanted = frozenset(cpu for cpu, chosen in enumerate(cpus) if chosen)
        if flags == 1:
            os.sched_setaffinity(self.guest.pid, wanted)
        self.note("live" if flags == 1 else "stored", self.guest.uuid, cpuset.format(wanted))

    def connect(self) -> FakeConnection:
        return self

    def listAllDomains(self) -> list[FakeConnection]:  # noqa: N802
        return [FakeConnection(self.world, self.note).lookupByUUIDString(each.uuid) for each in self.world.guests]

    def UUIDString(self) -> str:  # noqa: N802
        return self.guest.uuid

    def defineXML(self, text: str) -> None:  # noqa: N802
        pin = text.partition("<emulatorpin cpuset='")[2].partition("'")[0] or None
        self.note("stored", self.guest.uuid, pin)


def _libvirt(world: World, note: Callable[..., None]) -> ModuleType:
    fake = ModuleType("libvirt")
    for name, value in {
        "libvirtError": FakeError, "open": lambda _uri: FakeConnection(world, note),
        "registerErrorHandler": lambda *_: None, "VIR_ERR_NO_DOMAIN": 42, "VIR_ERR_OPERATION_INVALID": 55,
        "VIR_ERR_OPERATION_TIMEOUT": 68, "VIR_ERR_OPERATION_UNSUPPORTED": 84,
        "VIR_DOMAIN_PAUSED": 3, "VIR_DOMAIN_PAUSED_MIGRATION": 2,
        "VIR_DOMAIN_PAUSED_STARTING_UP": 11, "VIR_DOMAIN_SHUTOFF": 5, "VIR_DOMAIN_JOB_NONE": 0,
        "VIR_DOMAIN_CONTROL_OK": 0,
        "VIR_DOMAIN_XML_INACTIVE": 2, "VIR_DOMAIN_XML_SECURE": 1,
        "VIR_DOMAIN_AFFECT_LIVE": 1, "VIR_DOMAIN_AFFECT_CONFIG": 2,
    }.items():  # fmt: skip
        setattr(fake, name, value)
    return fake


def _record(world: World, root: str, ordered: order.Order) -> Mapping[str, Any]:
    from emupin.base.errors import EmupinError

    try:
        return recording.record_audited(root, ordered, world.policy, hurried=True)
    except EmupinError:
        return {}  # It is in the trail.


LOADED = adoption, decision, enforce, oldbook, store
"""Modules that calls import: each call begins with what this process has."""


def run(root: Path, calls: int, seed: int, report: Callable[[World], None] = lambda _world: None) -> World:
    """So many calls. Raises ViolationError, with the last events."""
    world = World(root, seed)
    while world.counts["calls"] < calls:
        try:
            world.step()
        except ViolationError as violation:
            last = "\n".join(world.history[-60:])
            raise ViolationError(f"seed {seed}, after {world.counts['calls']} calls: {violation}\n{last}") from None
        report(world)
    return world


def main(calls: int = 100_000, seed: int = 1) -> None:
    """In parts of 2,000 calls, each with a host and a seed of its own."""
    total: Counter[str] = Counter()
    began = time.monotonic()
    while total["calls"] < calls:
        root = Path(tempfile.mkdtemp(prefix="emupin-model-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        try:
            total += run(root, 2000, seed).counts
        finally:
            shutil.rmtree(root)
        seed += 1
        print(
            f"{total['calls']:,} calls, {total['killed']:,} killed, next seed {seed}, {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
