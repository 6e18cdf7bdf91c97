"""Who holds which CPU: real hook processes, real files below a root folder, and everything that may go wrong there."""

from __future__ import annotations

import fcntl
import marshal
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from decisions import ANOTHER, THIRD, UUID, GuestXml, pins, policy, policy_text
from hosts import HOOK, Answer, Host

from emupin.base import cpuset
from emupin.base.digest import hex_digest
from emupin.base.errors import HostError
from emupin.engine.hostcache import read_cached
from emupin.guest import domainxml
from emupin.live.facts import Facts
from emupin.node.book import FILTERED_SECONDS
from emupin.node.claims import PENDING_SECONDS, Ledger, from_mask

TEXT = policy_text('dedicated, "vcpu:0"', 'match: {name: "nfv-*"}', pool="64-127")
POLICY = policy('dedicated, "vcpu:0"', 'match: {name: "nfv-*"}', pool="64-127")
REFUSE = TEXT.replace("rules:", "defaults: {on_failure: refuse}\nrules:")
POOL = frozenset(range(64, 128))

Cpus = frozenset[int]

A = GuestXml(pins(2, 3, 4, 5), "2-5", uuid=UUID, name="nfv-a")
B = replace(A, uuid=ANOTHER, name="nfv-b", pins=pins(6, 7, 8, 9))
C = replace(A, uuid=THIRD, name="nfv-c", pins=pins(10, 11, 12, 13))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.write("sys/devices/system/cpu/online", "0-127\n")
    host.write("proc/sys/kernel/random/boot_id", "f1d2d2f9-0000-4000-8000-000000000001\n")
    host.set_policy(TEXT)
    return host


def prepare(host: Host, guest: GuestXml, operation: str = "prepare") -> Answer:
    return host.call(operation, guest.text, guest.name)


def placed(host: Host, guest: GuestXml, operation: str = "prepare") -> str:
    """The CPUs that the hook decides on, as the audit trail has them."""
    assert prepare(host, guest, operation).status == 0
    return str([entry["after"] for entry in host.audit() if entry["uuid"] == guest.uuid][-1])


def run(host: Host, guest: GuestXml, emulatorpin: str | None = None) -> Path:
    """libvirt's status file, as of a guest that runs: with the pin that the record leg has written, or the old one."""
    guest = replace(guest, emulatorpin=emulatorpin or guest.emulatorpin)
    path = host.write(f"run/libvirt/qemu/{guest.name}.new", guest.status)
    return path.rename(path.with_suffix(".xml"))


def release(host: Host, guest: GuestXml) -> None:
    (host.root / f"run/libvirt/qemu/{guest.name}.xml").unlink(missing_ok=True)
    assert host.call("release", guest.text, guest.name).status == 0


class Held(NamedTuple):
    """The first guest that has each CPU."""

    vcpus: dict[int, str]
    dedicated: dict[int, str]
    shared: dict[int, str]
    previous: Cpus | None = None


NOTHING = Held({}, {}, {})


def opened(host: Host) -> Ledger:
    """The ledger as the hook opens it."""
    return Ledger(str(host.root), POLICY, read_cached(str(host.root)))


def held(host: Host, uuid: str | None = None) -> Held:
    """What the guests but `uuid` have."""
    with opened(host) as ledger:
        others = ledger.others(uuid, frozenset(range(128)))
    return Held(by_cpu(others.vcpus), by_cpu(others.dedicated), by_cpu(others.shared), others.previous)


def by_cpu(uses: Mapping[str, Cpus]) -> dict[int, str]:
    found: dict[int, str] = {}
    for owner, cpus in uses.items():
        for cpu in cpus:
            found.setdefault(cpu, owner)
    return found


def claims(host: Host) -> dict[str, tuple[Cpus, bool]]:
    with opened(host) as ledger:
        return {owner: (from_mask(claim.cpus), claim.dedicated) for owner, claim in ledger.claims.items()}


def age(host: Host, guest: GuestXml, seconds: float) -> None:
    """Make the guest's claim so much older."""
    with opened(host) as ledger:
        claim = ledger.claims[guest.uuid]
        ledger.claims[guest.uuid] = claim.replace(since=claim.since - seconds)
        ledger.save()


def fleet(count: int) -> list[GuestXml]:
    """Guests of one vCPU, which is on a CPU of its own."""
    return [
        replace(A, name=f"nfv-{number}", uuid=str(uuid.UUID(int=number)), pins=pins(number)) for number in range(count)
    ]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_64_guests_at_once(host: Host) -> None:
    """On 48 CPUs: each of them goes to one guest, the other guests fall back, and nobody waits in vain for the lock."""
    host.set_policy(TEXT.replace("64-127", "64-111"))
    guests = fleet(64)
    prepare(host, guests[0])
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda guest: prepare(host, guest), guests))
    assert {(answer.status, answer.error) for answer in answers} == {(0, "")}
    last = {entry["uuid"]: entry for entry in host.audit()}
    assert {entry["outcome"] for entry in last.values()} == {"decided"}
    dedicated = [entry["after"] for entry in last.values() if entry["placement"] == "dedicated"]
    assert sorted(map(str, dedicated)) == sorted(str(cpu) for cpu in range(64, 112))
    others = {
        uuid.UUID(str(owner)).int: entry["after"] for owner, entry in last.items() if entry["placement"] == "vcpu:0"
    }
    assert len(others) == 16
    assert all(after == str(number) for number, after in others.items())


def test_hooks_killed_at_any_point(host: Host) -> None:
    """And what libvirt does next, another call for each guest: no CPU has two guests, no guest is left out."""
    guests = fleet(24)
    prepare(host, guests[0])
    chance = random.Random(7)
    environment = {"EMUPIN_ROOT": str(host.root), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    for guest in guests:
        process = subprocess.Popen(
            [HOOK, guest.name, "prepare", "begin", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(guest.text.encode())
        process.stdin.close()
        time.sleep(chance.uniform(0.02, 0.12))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    cpus = [placed(host, guest) for guest in guests]
    assert sorted(cpus) == sorted(map(str, range(64, 88)))


def test_a_lock_that_is_stuck_is_not_waited_for(host: Host) -> None:
    prepare(host, A)
    descriptor = os.open(host.root / "run/emupin/lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        host.set_policy(REFUSE)
        began = time.monotonic()
        answer = prepare(host, B)
        assert 3 < time.monotonic() - began < 8
    finally:
        os.close(descriptor)
    assert answer.status == 1
    assert "run/emupin/lock: cannot be locked" in answer.error


# -- the ledger's file ------------------------------------------------------------------------------------------------


def two_running(host: Host) -> Path:
    """A and B run, each on its dedicated CPU, and libvirt has recorded it; the ledger's file."""
    assert (placed(host, A), placed(host, B)) == ("64", "65")
    run(host, A, "64")
    run(host, B, "65")
    return host.root / "run/emupin/claims"


BOOT = "f1d2d2f9-0000-4000-8000-000000000001"


def rewritten(path: Path, old: str, new: str) -> None:
    """The ledger as another would have written it, whole."""
    lines = path.read_text().replace(old, new).splitlines()[:-1]
    path.write_text("\n".join([*lines, f"end {len(lines)}\n"]))


def of_emupin_0_1(path: Path, *parts: Any) -> None:
    """The ledger as emupin 0.1 wrote it under some Python."""
    payload = marshal.dumps((("0.1.0", 50990320), *parts))
    path.write_bytes(hex_digest(payload).encode() + b"\n" + payload)


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


WORTHLESS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(b"junk" * 99),
    "a later version's": lambda path: rewritten(path, "claims 2\n", "claims 3\n"),
    "not of its format": lambda path: rewritten(path, f"claim {UUID}", "claim"),
    "from another boot": lambda path: rewritten(path, BOOT, BOOT[:-1] + "f"),
    "emupin 0.1's of another boot": lambda path: of_emupin_0_1(path, "another", {}, {UUID: (1, True, 9.0, 0)}, {}, {}),
    "emupin 0.1's of another shape": lambda path: of_emupin_0_1(path, BOOT, {}),
    "unreadable": unreadable,
}


@pytest.mark.parametrize("way", WORTHLESS)
def test_a_ledger_that_is_worthless_is_made_anew(host: Host, way: str) -> None:
    path = two_running(host)
    before = held(host)
    WORTHLESS[way](path)
    assert held(host) == before
    assert placed(host, C) == "66"
    assert claims(host)[UUID] == (frozenset((64,)), True)


@pytest.mark.parametrize("since", [12.5, float("-inf")])
def test_a_ledger_of_emupin_0_1_is_read(host: Host, since: float) -> None:
    """Nothing but the ledger knows of A's start, of what B had before, and of what C held last."""
    pool = host.root / "run/emupin/claims"
    assert placed(host, A) == "64"
    run(host, B)
    starting, former = {UUID: (1 << 70, time.clock_gettime(time.CLOCK_BOOTTIME))}, 1 << 67
    held_by = {UUID: (1 << 64, True, 12.5 + PENDING_SECONDS * 1e6, 0), ANOTHER: (1 << 66, True, since, former)}
    of_emupin_0_1(pool, BOOT, {"nfv-b.xml": ("junk",)}, held_by, starting, {THIRD: 1 << 68})
    assert claims(host) == {UUID: (frozenset((64,)), True), ANOTHER: (frozenset((66,)), True)}
    assert set(held(host).dedicated) == {64, 66, 67}
    assert held(host).vcpus[70] == UUID
    assert held(host, THIRD).previous == frozenset((68,))


def test_what_a_later_emupin_adds_is_passed_over(host: Host) -> None:
    """And an earlier one goes on where it left off, within one version of the format."""
    path = two_running(host)
    held(host)
    before = claims(host)
    for kind in ("run ", "claim "):
        rewritten(path, f"\n{kind}", f"\nnew 1 2\n{kind}")
    lines = [f"{line} more" if line.startswith(("run", "claim")) else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    assert claims(host) == before


def test_a_worker_that_a_hand_has_moved_is_found_before_a_cpu_is_given_alone(host: Host) -> None:
    """Its main thread, the claim and the status file all say something else."""
    two_running(host)
    threads = {4242: ("qemu-system-x86", "64"), 4243: ("vnc_worker", "64")}
    run(host, replace(A, emulatorpin="64"))
    status = host.root / "run/libvirt/qemu/nfv-a.xml"
    status.write_text(status.read_text().replace("999999999", "4242"))
    host.write("proc/4242/cmdline", f"qemu\0-uuid\0{UUID}\0")
    host.write("proc/4242/cgroup", "0::/\n")
    host.write("proc/self/mountinfo", "")
    (host.root / "proc/4242/fd").mkdir()

    def show() -> None:
        for tid, (name, cpus) in threads.items():
            text = f"Name:\t{name}\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n"
            host.write(f"proc/4242/task/{tid}/status", text)
            host.write(f"proc/4242/task/{tid}/cgroup", "0::/\n")

    show()
    assert placed(host, B) == "65"
    threads[4243] = "vnc_worker", "66"
    show()
    assert placed(host, C) == "67"
    threads[4243] = "vnc_worker", "67"
    show()
    assert placed(host, C) == "66"  # It does not run yet.
    threads[4243] = "vnc_worker", "66"
    show()
    run(host, C)
    assert placed(host, C, "migrate") == "67"  # It is not there yet.


def of_another_python(path: Path) -> None:
    """As an upgrade of emupin, or a command line under another Python, finds it."""
    (_, hexversion), about, records = marshal.loads(path.read_bytes().partition(b"\n")[2])
    changed = {name: (THIRD, *record[1:]) for name, record in records.items()}
    data = marshal.dumps((("0.0.9", hexversion), about, changed))
    path.write_bytes(hex_digest(data).encode() + b"\n" + data)


@pytest.mark.parametrize(
    "change",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9]), unreadable, of_another_python],
    ids=["missing", "torn", "unreadable", "another Python's"],
)
def test_the_cache_of_running_guests_may_be_lost_and_no_claim_with_it(
    host: Host, change: Callable[[Path], object]
) -> None:
    """What was promised to A is in the claims alone: libvirt has recorded nothing, and no process is to be seen."""
    assert placed(host, A) == "64"
    run(host, A)
    assert placed(host, B) == "65"
    change(host.root / "run/emupin/guests")
    assert placed(host, C) == "66"
    assert held(host).dedicated[64] == UUID
    assert set(held(host).vcpus.values()) == {UUID, ANOTHER, THIRD}


def test_the_cache_of_running_guests_is_worth_nothing_without_the_claims(host: Host) -> None:
    """Known guests are not adopted: all must be new."""
    path = two_running(host)
    assert placed(host, C) == "66"
    path.unlink()
    assert claims(host)[UUID] == (frozenset((64,)), True)


def test_odd_names_survive_the_file(host: Host) -> None:
    for name in ("a b", "50%20", "x\ny", "ü"):
        run(host, replace(A, name=name), "64")
        with Ledger(str(host.root), None) as ledger:
            ledger.save()
        with Ledger(str(host.root), None) as ledger:
            assert f"{name}.xml" in ledger.records
        (host.root / f"run/libvirt/qemu/{name}.xml").unlink()


def test_a_torn_ledger_is_never_believed(host: Host) -> None:
    """Each of its beginnings, as a full file system may leave one."""
    path = two_running(host)
    held(host)
    whole = path.read_bytes()
    expected = claims(host)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert claims(host) == expected


def test_a_lost_ledger_between_enforcement_and_record(host: Host) -> None:
    """The status file still has Nova's union: the process itself says where its threads are."""
    assert placed(host, A) == "64"
    run(host, A)
    status = "Name:\tqemu\nCpus_allowed:\tff\nCpus_allowed_list:\t64\nMems_allowed:\t1\n"
    host.write("proc/999999999/status", status)
    (host.root / "run/emupin/claims").unlink()
    assert placed(host, B) == "65"
    assert claims(host)[UUID] == (frozenset((64,)), True)


def test_a_claim_is_lost_before_the_guest_runs(host: Host) -> None:
    """The other guest has the CPU meanwhile; the first is decided anew when it comes back."""
    assert placed(host, A) == "64"
    (host.root / "run/emupin/claims").unlink()
    assert placed(host, B) == "64"
    assert placed(host, A) == "65"


# -- guests that emupin did not start ---------------------------------------------------------------------------------


def test_a_guest_from_before_the_install_keeps_what_it_has(host: Host) -> None:
    run(host, A, "64")
    assert placed(host, B) == "65"
    assert claims(host) == {UUID: (frozenset((64,)), True), ANOTHER: (frozenset((65,)), True)}
    assert placed(host, A) == "64"


@pytest.mark.parametrize(
    ("why", "guest", "emulatorpin"),
    [
        ("no rule takes it", replace(A, name="web-1"), "64"),
        ("more CPUs than the policy gives", A, "64-65"),
        ("its own vCPU runs there", replace(A, pins=pins(64, 3)), "64"),
    ],
)
def test_it_does_not_get_a_cpu_for_itself(host: Host, why: str, guest: GuestXml, emulatorpin: str) -> None:
    """But nobody else gets it for himself either."""
    run(host, guest, emulatorpin)
    assert UUID not in claims(host), why
    assert 64 in {*held(host).shared, *held(host).vcpus}
    assert placed(host, B) == ("66" if emulatorpin == "64-65" else "65")


def test_of_two_guests_on_one_cpu_only_one_can_have_it_alone(host: Host) -> None:
    run(host, A, "64")
    run(host, B, "64")
    assert list(claims(host).values()) == [(frozenset((64,)), True)]
    assert placed(host, B) == "65"
    assert placed(host, A) == "64"


@pytest.mark.parametrize("first", ["prepare", "release"])
def test_a_guest_on_whole_cores_keeps_what_it_has_whatever_call_is_the_first(host: Host, first: str) -> None:
    """`release` looks at the host just for this: without its cores such a guest is not pinned."""
    for cpu in range(128):
        host.write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 64},{cpu % 64 + 64}\n")
    host.set_policy(policy_text('dedicated, "vcpu:0"', "match: {pinned: true}", pool="32-35"))
    run(host, replace(A, pins=pins("2,66", "3,67")), "32")
    host.write("run/emupin/claims", "torn", 0o600)
    if first == "release":
        release(host, C)
        host.set_policy(policy_text("pool", pool="32-35"))  # It has the CPU by the policy that was in force.
    assert placed(host, B) == ("33-35" if first == "release" else "33")


@pytest.mark.parametrize(
    ("rule", "guest", "emulator", "vhost", "left"),
    [
        ("placement: [dedicated], vhost: [dedicated]", A, "64", "65", "66-67"),
        ('placement: ["vcpu:0"], vhost: [dedicated]', A, "2", "65", "64,66-67"),
        ("placement: [pool], vhost: [dedicated]", A, "64-67", "65", "64,66-67"),
        ("placement: [dedicated]", replace(A, pins={}, vcpus=2, vcpu_attributes="cpuset='2-127'"), "64", "64", "65-67"),
    ],
    ids=["both", "vhost workers", "vhost workers on a CPU of the others", "its vCPUs float"],
)
def test_what_threads_are_on_stays_theirs_when_the_ledger_is_lost(
    host: Host, rule: str, guest: GuestXml, emulator: str, vhost: str, left: str
) -> None:
    first, second = f"{{name: a, match: {{name: nfv-a}}, {rule}}}", "{name: b, placement: pool}"
    host.set_policy(f"version: 1\nhost: {{pool: 64-67}}\nrules:\n  - {first}\n  - {second}\n")
    run(host, guest, emulator)
    show_process(host, emulator, vhost)
    assert placed(host, B) == left


def show_process(host: Host, emulator: str, vhost: str) -> None:
    """Where the kernel says that the threads of every guest are: they all name one process."""
    process = "proc/999999999"
    for thread, name, cpus in (
        (process, "qemu", emulator),
        (f"{process}/task/999999999", "qemu", emulator),
        (f"{process}/task/999999998", "vhost-999999999", vhost),
    ):
        host.write(f"{thread}/status", f"Name:\t{name}\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n")
        host.write(f"{thread}/cgroup", "4:cpu:/machine/x\n")
    (host.root / process / "fd").mkdir()


def test_a_cpu_is_nobody_elses_until_the_last_of_those_who_may_have_it_has_left(host: Host) -> None:
    """Whose it was is lost with the ledger: libvirt may have started one guest where the other was alone."""
    rules = "{name: alone, match: {name: 'nfv-[!c]'}, placement: [dedicated]}, {name: pool, placement: pool}"
    host.set_policy(f"version: 1\nhost: {{pool: 64-66}}\nrules: [{rules}]\n")
    for guest in (A, B):
        run(host, guest, "64")
    show_process(host, "64", "64")
    assert placed(host, C) == "65-66"
    release(host, A)
    assert placed(host, C) == "65-66"
    release(host, B)
    assert placed(host, C) == "64-66"


def test_a_guest_in_place_stays_where_libvirt_starts_another_beside_it(host: Host) -> None:
    """Before, the next restart of libvirtd drove it away, or took its claim where there was no other CPU."""
    two_running(host)
    show_process(host, "64", "64")
    run(host, C, "64")
    assert placed(host, A, "migrate") == "64"
    host.set_policy(REFUSE.replace("64-127", "64").replace(', "vcpu:0"', ""))
    assert placed(host, A, "migrate") == "64"
    assert claims(host)[UUID] == (frozenset((64,)), True)


def test_guests_that_libvirt_starts_all_over_the_pool_get_cpus_of_their_own(host: Host) -> None:
    """Before `started` has moved it, and before libvirt's record says so, each is confined to all of the pool."""
    guests = [replace(each, emulatorpin="64-127") for each in (A, B, C)]
    host.set_policy(REFUSE.replace(', "vcpu:0"', ""))
    assert [placed(host, each) for each in guests] == ["64", "65", "66"]
    for each in guests[:2]:
        run(host, each, "64-127")
    host.write("proc/999999999/status", "Name:\tqemu\nCpus_allowed:\tff\nCpus_allowed_list:\t64\nMems_allowed:\t1\n")
    assert placed(host, guests[2]) == "66"


def test_a_filtered_guest_is_expected_where_the_filter_puts_it(host: Host) -> None:
    host.set_policy(TEXT.replace('dedicated, "vcpu:0"', '"cpus:70"'))
    assert placed(host, replace(A, emulatorpin="64-127"), "migrate") == "70"
    assert held(host).shared == {70: UUID}


# -- the ends of guests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "seconds"),
    [
        (["prepare"], PENDING_SECONDS),
        (["migrate"], FILTERED_SECONDS),
        (["restore"], FILTERED_SECONDS),
        (["migrate", "prepare"], PENDING_SECONDS),
    ],
)
def test_a_start_that_never_comes(host: Host, operations: list[str], seconds: float) -> None:
    """A start that fails, an incoming migration that is cancelled: the claim ends after a while.

    That of a filter ends soon: libvirt may refuse the guest then, or only define it, and calls nobody.
    """
    host.set_policy(TEXT.replace("64-127", "64"))
    for operation in operations:
        assert placed(host, A, operation) == "64"
    age(host, A, seconds - 30)
    assert placed(host, B) == "6"
    age(host, A, 31)
    assert placed(host, B) == "64"
    assert placed(host, A) == "2"


def test_a_start_that_fails_is_released_by_libvirt(host: Host) -> None:
    host.set_policy(TEXT.replace("64-127", "64"))
    assert placed(host, A) == "64"
    release(host, A)
    assert placed(host, B) == "64"


def test_a_running_guest_never_loses_its_claim(host: Host) -> None:
    host.set_policy(TEXT.replace("64-127", "64"))
    assert placed(host, A) == "64"
    run(host, A, "64")
    age(host, A, 10 * PENDING_SECONDS)
    assert placed(host, B) == "6"


def test_a_crash(host: Host) -> None:
    """With libvirt's `release` the CPU is free at once; without it as soon as the claim is as old as a failed start."""
    two_running(host)
    host.set_policy(TEXT.replace("64-127", "64-65"))
    release(host, A)
    assert placed(host, C) == "64"
    (host.root / "run/libvirt/qemu/nfv-b.xml").unlink()
    assert placed(host, A) == "2"
    age(host, B, PENDING_SECONDS + 1)
    assert placed(host, A) == "65"


def test_a_guest_that_restarts_gets_its_cpu_back(host: Host) -> None:
    two_running(host)
    release(host, A)
    release(host, B)
    assert placed(host, B) == "65"
    assert placed(host, C) == "64"
    assert placed(host, A) == "66"


def test_a_reboot(host: Host) -> None:
    """/run is gone and so are the guests; their definitions have the pin that was recorded."""
    two_running(host)
    shutil.rmtree(host.root / "run")
    host.write("proc/sys/kernel/random/boot_id", "f1d2d2f9-0000-4000-8000-000000000002\n")
    assert placed(host, replace(B, emulatorpin="65")) == "65"
    assert claims(host) == {ANOTHER: (frozenset((65,)), True)}
    assert placed(host, A) == "64"


def test_releasing_twice_and_the_unknown(host: Host) -> None:
    two_running(host)
    for guest in (A, A, C):
        release(host, guest)
    assert claims(host) == {ANOTHER: (frozenset((65,)), True)}


# -- changes around them ----------------------------------------------------------------------------------------------


def test_a_cpu_goes_offline(host: Host) -> None:
    two_running(host)
    host.write("sys/devices/system/cpu/online", "0-63,65-127\n")
    assert placed(host, A) == "66"
    run(host, A, "66")
    host.write("sys/devices/system/cpu/online", "0-127\n")
    assert placed(host, C) == "64"


def test_vcpus_arrive_on_an_emulators_cpu(host: Host) -> None:
    """Orchestrators do not know of us: it is told, whether a rule takes the new guest or not."""
    two_running(host)
    said = f"CPU 64 runs a vCPU of this guest, and has the emulator threads of guest nfv-a ({UUID})"
    for guest in (replace(C, name="web-1", pins=pins(64)), replace(C, pins=pins(10, 64))):
        prepare(host, guest)
        assert said in str(host.audit()[-1]["warnings"])
        assert host.audit()[-1]["uuid"] == THIRD


def test_vcpus_that_have_arrived_make_the_emulator_go(host: Host) -> None:
    """At the next decision: its own CPU is no longer fit to be dedicated."""
    two_running(host)
    run(host, replace(C, name="web-1", pins=pins(64)))
    assert placed(host, A) == "66"


@pytest.mark.parametrize(("name", "next_free"), [("nfv-a", 66), ("web-1", 65)])
def test_where_vcpus_will_be_is_known_before_the_guest_runs(host: Host, name: str, next_free: int) -> None:
    """Between its `prepare` and libvirt's first status file of it, whether a rule takes it or not."""
    starting = replace(A, name=name, pins=pins(2, 64))
    assert prepare(host, starting).status == 0
    assert held(host).vcpus == {2: UUID, 64: UUID}
    facts = Facts(None, ledger=Ledger.look(str(host.root), POLICY))
    assert facts.others(domainxml.read(starting.text.encode(), "nfv-a.xml")).vcpus == {}
    assert placed(host, B) == str(next_free)
    assert placed(host, replace(C, pins=pins(2, 3))) == str(next_free + 1)
    run(host, starting)
    assert held(host).vcpus == {2: UUID, 64: UUID, **dict.fromkeys((6, 7, 8, 9), ANOTHER), 3: THIRD}
    release(host, starting)
    assert UUID not in held(host).vcpus.values()


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_vcpus_of_a_guest_that_is_refused_are_not_expected(host: Host, operation: str) -> None:
    """libvirt releases a guest whose `prepare` was refused, but not one that has not come that far."""
    host.set_policy(REFUSE.replace("64-127", "2"))
    guest = replace(A, pins=pins(2, 2))
    assert prepare(host, guest, operation).status == 1
    assert held(host) == NOTHING


@pytest.mark.parametrize("name", ["nfv-a", "web-1"])
def test_vcpus_of_a_start_that_never_comes(host: Host, name: str) -> None:
    """libvirt releases a guest whose start fails; if it dies itself, the guest counts as long as a claim would."""
    starting = replace(A, name=name)
    prepare(host, starting)
    release(host, starting)
    assert held(host) == NOTHING
    prepare(host, starting)
    with opened(host) as ledger:
        start = ledger.starting[UUID]
        ledger.starting[UUID] = start.replace(since=start.since - PENDING_SECONDS - 1)
        ledger.save()
    assert held(host).vcpus == {}


def test_the_former_cpu_is_not_given_away_before_the_threads_have_left_it(host: Host) -> None:
    """The hook may be killed, or libvirt not answer, between the claim and the threads' move."""
    two_running(host)
    host.set_policy(TEXT.replace("64-127", "65-127"))
    assert placed(host, A) == "66"
    host.set_policy(TEXT)
    assert held(host).dedicated[64] == UUID
    assert placed(host, C) == "67"
    run(host, A, "66")
    assert 64 not in {*held(host).dedicated, *held(host).shared}


def test_vhost_workers_hold_cpus_of_their_own(host: Host) -> None:
    """Nobody else gets them, and they come back to what they had."""
    host.set_policy(policy_text("dedicated", "vhost: dedicated", pool="64-127"))
    assert placed(host, A) == "64"
    assert held(host).dedicated == dict.fromkeys((64, 65), UUID)
    assert placed(host, B) == "66"
    release(host, A)
    assert held(host).dedicated == dict.fromkeys((66, 67), ANOTHER)


def test_a_migration_in_of_a_guest_that_runs_here(host: Host) -> None:
    """libvirt asks the filter before it finds out; what the running guest has stays its own, and it gets no more."""
    two_running(host)
    assert placed(host, replace(A, pins=pins(64, 3)), "migrate") == "66"
    assert placed(host, C) == "66"
    assert held(host).dedicated[64] == UUID


def test_iothreads_that_a_filter_has_follow_are_on_no_other_cpus_any_more(host: Host) -> None:
    """The next guest that comes in is told of the pins that were printed."""
    host.set_policy(policy_text("dedicated", "iothreads: follow", pool="64-127"))
    assert placed(host, replace(A, iothreads={1: "65"}), "migrate") == "64"
    with opened(host) as ledger:
        others = ledger.others(None, frozenset(range(128)))
    assert others.iothreads == {UUID: frozenset((64,))}


def test_a_running_guest_that_finds_no_place_stays_where_it_is(host: Host) -> None:
    """And with it what others may have: the decision failed, its threads have not moved."""
    two_running(host)
    run(host, A)
    host.set_policy(TEXT.replace(', "vcpu:0"', "").replace("64-127", "2"))
    prepare(host, A, "migrate")
    assert host.audit()[-1]["outcome"] == "failed"
    assert held(host).shared == dict.fromkeys((2, 3, 4, 5), UUID)
    assert held(host).dedicated == {64: UUID, 65: ANOTHER}
    host.set_policy(TEXT)
    assert placed(host, C) == "66"
    release(host, A)
    assert 64 not in {*held(host).shared, *held(host).dedicated}


def test_two_guests_of_one_name(host: Host) -> None:
    """One was undefined and another defined: the old claim is not the new guest's."""
    two_running(host)
    newcomer = replace(C, name=A.name)
    assert placed(host, newcomer) == "66"
    run(host, newcomer, "66")
    assert claims(host)[UUID] == (frozenset((64,)), True)
    age(host, A, PENDING_SECONDS + 1)
    assert set(claims(host)) == {ANOTHER, THIRD}


BROKEN = {
    "cut off": f"<domstatus state='running' pid='4242'><domain type='kvm'><uuid>{THIRD}</uuid>",
    "nothing that tells who it is": "<domstatus",
    "empty": "",
}


def make_process(host: Host, threads: Mapping[int, tuple[str, str]]) -> None:
    """A pretended QEMU of guest nfv-c without cpuset cgroups: the name and the CPUs of each thread."""
    host.write("run/libvirt/qemu/nfv-c.pid", "4242\n")
    host.write("proc/4242/cmdline", f"qemu-system-x86_64\0-uuid\0{THIRD}\0")
    host.write("proc/self/mountinfo", "")
    (host.root / "proc/4242/fd").mkdir()
    for tid, (name, cpus) in threads.items():
        host.write(f"proc/4242/task/{tid}/status", f"Name:\t{name}\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n")
        host.write(f"proc/4242/task/{tid}/cgroup", "0::/\n")
    host.write("proc/4242/cgroup", "0::/\n")


def test_a_thread_that_a_hand_confined_counts_beside_one_that_nobody_has(host: Host) -> None:
    """The main thread may run everywhere, which would leave no CPU to anybody; the other may run on two."""
    run(host, replace(C, pins={}, emulatorpin=None))
    status = host.root / "run/libvirt/qemu/nfv-c.xml"
    status.write_text(status.read_text().replace("999999999", "4242"))
    make_process(
        host, {4242: ("qemu-system-x86", "0-127"), 4243: ("CPU 0/KVM", "0-127"), 4244: ("vnc_worker", "64,70")}
    )
    assert placed(host, A) == "65"
    assert {64, 70} <= {*held(host).shared}
    assert 66 not in held(host).shared


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_status_file_costs_only_its_own_guest(host: Host, way: str) -> None:
    """Its CPUs count by where its threads may run, and everybody else is placed."""
    two_running(host)
    host.write("run/libvirt/qemu/nfv-c.xml", BROKEN[way])
    make_process(host, {4242: ("qemu-system-x86", "66"), 4243: ("CPU 0/KVM", "67"), 4244: ("CPU 1/KVM", "0-127")})
    host.set_policy(REFUSE)
    assert placed(host, replace(C, uuid=str(uuid.UUID(int=4)), name="nfv-d")) == "68"
    assert "guest nfv-c is judged by its threads alone: " in str(host.audit()[-1]["warnings"])
    owner = THIRD if way == "cut off" else "nfv-c.xml"
    assert (held(host).shared[66], held(host).vcpus[67]) == (owner, owner)
    assert not {69, 127} & {*held(host).shared, *held(host).vcpus}, "vCPU 1 floats: it counts nowhere"


def test_a_broken_status_file_without_a_process(host: Host) -> None:
    """What was promised to its guest stays promised."""
    two_running(host)
    assert placed(host, C) == "66"
    host.write("run/libvirt/qemu/nfv-c.xml", "")
    assert placed(host, replace(C, uuid=str(uuid.UUID(int=4)), name="nfv-d")) == "67"


def test_the_daemons_own_files_are_no_guests(host: Host) -> None:
    host.write("run/libvirt/qemu/driver.pid", "1\n")
    host.write("run/libvirt/qemu/nfv-a.pid", "1\n")
    assert held(host) == NOTHING


# -- /run is full -----------------------------------------------------------------------------------------------------

FULL = """\
mount -t tmpfs -o size=8k none "$EMUPIN_ROOT/run" || exit 77
cat /dev/zero >"$EMUPIN_ROOT/run/filler" 2>/dev/null
exec '{hook}' "$@"
"""


@pytest.fixture
def full(host: Host, tmp_path: Path) -> Host:
    """A host whose /run is full, in a mount namespace of each call's own."""
    inner = tmp_path / "inner"
    inner.write_text("#!/bin/sh\n" + FULL.format(hook=HOOK))
    outer = tmp_path / "outer"
    outer.write_text(f'#!/bin/sh\nexec unshare --mount --propagation=private {inner} "$@"\n')
    for path in (inner, outer):
        path.chmod(0o755)
    (host.root / "run").mkdir()
    host.hook = outer
    if host.call("start", "", "nfv-a").status:
        pytest.skip("mounting is not allowed here")
    return host


def test_what_cannot_be_noted_is_not_given(full: Host) -> None:
    """Where a dedicated CPU cannot be noted, the guest starts as it is, or not at all if the policy says so."""
    assert prepare(full, A) == Answer(0, "", "")
    assert full.audit()[-1]["outcome"] == "failed"
    assert "claims: cannot be written: No space left on device; free some space in /run" in str(
        full.audit()[-1]["reason"]
    )
    full.set_policy(REFUSE)
    answer = prepare(full, A)
    assert answer.status == 1
    assert "No space left on device" in answer.error


def test_what_need_not_be_noted_works_with_a_full_run(full: Host) -> None:
    full.set_policy(TEXT.replace('dedicated, "vcpu:0"', '"vcpu:0"'))
    assert prepare(full, A, "migrate").output == replace(A, emulatorpin="2").text


def test_a_folder_that_cannot_be_locked(host: Host) -> None:
    host.write("run/emupin", "a file")
    with pytest.raises(HostError, match="run/emupin/lock: cannot be locked"):
        held(host)


def test_masks_are_sets() -> None:
    for text in ("", "0", "5,64-70,1023"):
        cpus = cpuset.parse_kernel(text)
        assert from_mask(sum(1 << cpu for cpu in cpus)) == cpus
