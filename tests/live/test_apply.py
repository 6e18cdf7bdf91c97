"""`emupin apply` on a pretended kernel and a pretended libvirt; real ones are in `tests/real`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command import emupin
from guests import Machine, many
from hosts import DEDICATED, POLICY, Host, domain_xml

from emupin.base import cpuset
from emupin.base.errors import RecordError
from emupin.engine.definition import NO_MORE
from emupin.guest.domainxml import read
from emupin.live.alignment import Request
from emupin.live.applying import FAILED, IN_LINE, LEFT_ALONE, MENDED, NOT_NOW, OUT_OF_LINE, Means, Result, apply
from emupin.node import former, store
from emupin.node.claims import Ledger
from emupin.node.definition import settle_definition
from emupin.order import SHUT_OFF, Order
from emupin.recording import Recorded
from emupin.screen.applytext import lines, total

STORED = "5a3f1d2c-7f0e-4c50-9a1b-00000000000f"

FIRST = frozenset((2,))
"""Where `vcpu:0` puts the guests here: what libvirt records of a definition is its own plan."""


@dataclass
class World:
    """Guests by name, what libvirt was asked for, and what stands in its way."""

    machines: dict[str, Machine]
    orders: list[Order] = field(default_factory=list)
    trouble: str = ""
    meddles: bool = False
    """Somebody puts a thread elsewhere whenever libvirt has recorded a pin."""

    @property
    def means(self) -> Means:
        return Means(self.set_affinity, self.record)

    def set_affinity(self, tid: int, cpus: frozenset[int]) -> None:
        for machine in self.machines.values():
            if tid - machine.pid in machine.tasks:
                group = machine.host.root / f"sys/fs/cgroup/cpuset{machine.folder}/emulator/cpuset.cpus"
                machine.group = group.read_text().strip()
                machine.tasks[tid - machine.pid].allowed = cpuset.format(cpus)
                machine.write()

    def record(self, root: str, order: Order) -> Mapping[str, Recorded]:
        if self.trouble:
            raise RecordError("libvirt-python", self.trouble)
        self.orders.append(order)
        for machine in self.machines.values():
            if machine.uuid == order.uuid:
                machine.pin = cpuset.format(order.cpus or FIRST)
                machine.stored = machine.pin if order.persist else machine.stored
                if self.meddles:
                    machine.tasks[1].allowed = "9"
                machine.write()
                return dict.fromkeys(("live", "persistent"), Recorded(machine.name, None, "2", "why"))
        path = f"{root}/etc/libvirt/qemu/nfv-2.xml"
        Path(path).write_text(domain_xml("nfv-2", cpuset.format(FIRST), STORED))
        return {"persistent": Recorded("nfv-2", None, "2", "why")}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.set_policy()
    return host


def run(host: Host, names: list[str], means: Means | None) -> dict[str, Result]:
    found = store.find(str(host.root))
    assert found.policy
    return {each.name: each for each in apply(Request(str(host.root), found.policy), names, means)}


def states(results: dict[str, Result]) -> list[str]:
    return [each.state for each in results.values()]


def spoil(machine: Machine) -> None:
    for task in list(machine.tasks.values())[:3]:
        task.allowed = "2-5"
    machine.group = machine.pin = machine.stored = "2-5"
    machine.write()


def snapshot(root: Path) -> dict[str, bytes]:
    keep = ("run/emupin", "var/lib/emupin")
    return {
        str(path): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not str(path.relative_to(root)).startswith(keep)
    }


def test_a_dry_run_shows_all_and_changes_nothing(host: Host) -> None:
    spoil(Machine(host))
    before = snapshot(host.root)
    done = emupin(host.root, "apply", "nfv-1")
    assert (done.returncode, done.stderr) == (1, b"nothing was changed; add --yes to make the changes\n")
    assert done.stdout.decode().splitlines() == [
        "nfv-1: drifted (rule nfv, vcpu:0: emulator threads on 2)",
        "  emulator thread 'qemu-system-x86' (4242): 2-5 -> 2",
        "  emulator thread 'qemu-system-x86' (4243): 2-5 -> 2",
        "  emulator thread 'vnc_worker' (4244): 2-5 -> 2",
        "  cpuset.cpus of emulator: 2-5 -> 2",
        "  live XML:",
        "    -<emulatorpin cpuset='2-5'/>",
        "    +<emulatorpin cpuset='2'/>",
        "  persistent XML:",
        "    -<emulatorpin cpuset='2-5'/>",
        "    +<emulatorpin cpuset='2'/>",
        "1 guest: 1 drifted",
    ]
    assert snapshot(host.root) == before
    assert not (host.root / "run/emupin/claims").exists()


def test_mended_claimed_and_audited(host: Host) -> None:
    machine = Machine(host)
    spoil(machine)
    world = World({"nfv-1": machine})
    result = run(host, ["nfv-1"], world.means)["nfv-1"]
    assert (result.state, result.error) == (MENDED, "")
    assert (result.done.groups, sorted(result.done.moved)) == (1, [4242, 4243, 4244])
    assert result.done.recorded == ["live", "persistent"]
    assert list(lines(result, applied=True, said={})) == [
        "nfv-1: fixed (rule nfv, vcpu:0: emulator threads on 2): 1 cpuset written, 3 threads set, "
        "live and persistent XML changed"
    ]
    assert [machine.tasks[at].allowed for at in (0, 3, 4)] == ["2", "7", "2"]
    assert Ledger.look(str(host.root), None).claims[machine.uuid].cpus == 1 << 2
    (entry,) = host.audit()
    assert (entry["op"], entry["outcome"], entry["uuid"]) == ("apply", "enforced", machine.uuid)
    assert "hunter2" not in json.dumps(entry)
    again = run(host, ["nfv-1"], world.means)["nfv-1"]
    assert again.state == IN_LINE
    assert len(world.orders) == 1, "libvirt is not asked where its files are right"


def test_guests_that_no_rule_takes_or_that_are_kept_are_not_touched(host: Host) -> None:
    other = Machine(host, "other")
    spoil(other)
    before = snapshot(host.root)
    world = World({"other": other})
    assert states(run(host, ["other"], world.means)) == [LEFT_ALONE]
    host.set_policy(DEDICATED.replace("[dedicated]", "[keep]").replace("nfv-*", "*"))
    assert states(run(host, ["other"], world.means)) == [LEFT_ALONE]
    host.set_policy()
    assert snapshot(host.root) == before
    assert not world.orders


def test_a_guest_that_is_shut_off(host: Host) -> None:
    path = host.write("etc/libvirt/qemu/nfv-2.xml", domain_xml("nfv-2", "2-5", STORED))
    world = World({})
    assert states(run(host, ["nfv-2"], None)) == [OUT_OF_LINE]
    result = run(host, ["nfv-2"], world.means)["nfv-2"]
    assert (result.state, result.done.recorded) == (MENDED, ["persistent"])
    assert "<emulatorpin cpuset='2'/>" in path.read_text()
    (order,) = world.orders
    assert (order.domain_id, order.cpus) == (SHUT_OFF, None)
    assert Ledger.look(str(host.root), None).claims == {}, "who does not run holds nothing"
    assert [(each["op"], each["outcome"]) for each in host.audit()] == [("apply", "rewritten")]
    assert states(run(host, ["nfv-2"], world.means)) == [IN_LINE]
    host.set_policy("version: 1\nrules: [{name: nfv, match: {name: 'nfv-*'}, placement: 'cpus:9', persist: false}]\n")
    assert states(run(host, ["nfv-2"], None)) == [IN_LINE], "nothing is to persist"


def test_one_failure_stops_no_other(host: Host) -> None:
    machine = Machine(host)
    spoil(machine)
    host.write("etc/libvirt/qemu/nfv-0.xml", "<domain")
    results = run(host, ["nfv-0", "nfv-1", "gone"], World({"nfv-1": machine}).means)
    assert states(results) == [FAILED, MENDED, "ended"]
    assert total(list(results.values())) == "3 guests: 1 fixed, 1 ended, 1 failed"
    done = emupin(host.root, "apply", "--all")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def write_stored(host: Host, name: str, pin: str | None = None, vcpu_0: str = "2") -> Path:
    """The definition of a guest that is shut off."""
    uuid = STORED[: -len(name)] + name.encode().hex()[-len(name) :]
    text = domain_xml(name, pin, uuid).replace("vcpu='0' cpuset='2'", f"vcpu='0' cpuset='{vcpu_0}'")
    return host.write(f"etc/libvirt/qemu/{name}.xml", text)


@pytest.mark.parametrize("words", [(), ("--yes",)])
def test_guests_without_a_place_that_are_shut_off_are_warnings_and_one_conflict_is_said_once(
    host: Host, words: tuple[str, ...]
) -> None:
    """They hold no CPU, and their next starts decide: nothing has failed."""
    Machine(host)
    for name in ("nfv-2", "nfv-3", "nfv-4"):
        write_stored(host, name)
    write_stored(host, "nfv-5", vcpu_0="99")
    done = emupin(host.root, "apply", "--all", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    of, nothing = "guest nfv-1 (5a3f1d2c-7f0e-4c50-9a1b-0123456789ab)", "rule 'nfv': no placement passes its checks"
    again = "its next start decides again"
    arrives = f"CPU 2 runs a vCPU of this guest, and has the emulator threads of {of}"
    taken = f"{nothing} (vcpu:0: CPU 2 runs vCPUs of {of}); {again}"
    assert done.stdout.decode().splitlines() == [
        "nfv-1: in sync (rule nfv, vcpu:0: emulator threads on 2)",
        "nfv-2: cannot be placed now, shut off",
        f"  - {arrives}",
        f"  - {taken}",
        "nfv-3: cannot be placed now, shut off",
        "  - the same 2 warnings as nfv-2",
        "nfv-4: cannot be placed now, shut off",
        "  - the same 2 warnings as nfv-2",
        "nfv-5: cannot be placed now, shut off",
        f"  - {nothing} (vcpu:0: the host has no CPU 99 online (online are 0-15)); {again}",
        "5 guests: 1 in sync, 4 cannot be placed now",
    ]
    told = json.loads(emupin(host.root, "apply", "--json", "nfv-3").stdout)["guests"][0]
    assert (told["state"], told["error"], told["cpus"]) == ("cannot be placed now", None, None)
    assert told["warnings"] == [arrives, taken], "where a machine reads it, each guest has its own"


@pytest.mark.parametrize("plan", ["fails", "cannot be started with"])
def test_an_impossible_pin_is_taken_out_of_a_guest_that_is_shut_off(host: Host, plan: str) -> None:
    """libvirt fails to start the guest with it, whatever the hook says."""
    path = write_stored(host, "nfv-2", pin="99", vcpu_0="98" if plan == "fails" else "2")
    if plan == "cannot be started with":
        host.write("usr/lib64/libvirt.so.0", "libvirt version: 9.0.0, package: 4 (Debian)\0")
        for node, cpus in enumerate(("0-7", "8-15")):
            host.write(f"sys/devices/system/node/node{node}/cpulist", cpus)
        host.write("sys/devices/system/node/online", "0-1")
        memory = (
            "<memoryBacking><allocation mode='immediate'/></memoryBacking>"
            "<numatune><memory mode='strict' nodeset='1'/></numatune>"
        )
        path.write_text(path.read_text().replace("  <vcpu ", f"  {memory}\n  <vcpu ", 1))
    pin = "    <emulatorpin cpuset='99'/>\n"

    def record(root: str, _: Order) -> Mapping[str, Recorded]:
        """The recorder on a pretended libvirt: it settles the definition, and takes the pin out."""
        found = store.find(root).policy
        assert found
        settled = settle_definition(root, found, read(path.read_bytes(), str(path), found.sections()))
        assert (settled.plan.pin, settled.leaving) == (None, {"emulator": None})
        path.write_text(path.read_text().replace(pin, ""))
        return {"persistent": Recorded("nfv-2", "99", None, "why")}

    result = run(host, ["nfv-2"], None)["nfv-2"]
    assert (result.state, pin in path.read_text()) == (OUT_OF_LINE, True)
    assert "    -<emulatorpin cpuset='99'/>" in list(lines(result, applied=False, said={}))
    means = Means(World({}).set_affinity, record)
    result = run(host, ["nfv-2"], means)["nfv-2"]
    assert (result.state, result.done.recorded, pin in path.read_text()) == (MENDED, ["persistent"], False)
    (entry,) = host.audit()
    assert (entry["op"], entry["outcome"], entry["diff"]) == ("apply", "rewritten", ["-" + pin[:-1]])
    assert emupin(host.root, "audit", "replay").returncode == 0
    expected = NOT_NOW if plan == "fails" else IN_LINE
    assert states(run(host, ["nfv-2"], means)) == [expected]


@pytest.mark.parametrize("running", [True, False])
def test_a_dry_run_shows_what_comes_back_to_iothreads_that_followed_once(host: Host, running: bool) -> None:
    """The recording process settles the definition by the same function."""
    if running:
        Machine(host)
    name = "nfv-1" if running else "nfv-2"
    path = write_stored(host, name, pin="2")
    text = path.read_text().replace("</vcpu>", "</vcpu>\n  <iothreads>1</iothreads>", 1)
    path.write_text(text.replace("  </cputune>", "    <iothreadpin iothread='1' cpuset='2'/>\n  </cputune>"))
    uuid = read(path.read_bytes(), str(path)).uuid or ""
    former.remember(str(host.root), uuid, "persistent", {"1": "5"}, {"1": "2"}, "")
    result = run(host, [name], None)[name]
    assert result.state == OUT_OF_LINE
    assert list(lines(result, applied=False, said={}))[-3:] == [
        "  persistent XML:",
        "    -<iothreadpin iothread='1' cpuset='2'/>",
        "    +<iothreadpin iothread='1' cpuset='5'/>",
    ]
    assert result.seen
    (drift,) = result.seen.drifts
    assert (drift.what, cpuset.text(drift.expected), drift.cause) == ("<iothreadpin> of iothread1", "5", NO_MORE)


def test_trouble_with_libvirt_leaves_the_threads_placed(host: Host) -> None:
    machine = Machine(host)
    spoil(machine)
    result = run(host, ["nfv-1"], World({"nfv-1": machine}, trouble="is not installed").means)["nfv-1"]
    assert (result.state, result.error) == (FAILED, "libvirt-python: is not installed")
    assert len(result.done.moved) == 3
    assert machine.tasks[1].allowed == "2"
    assert "3 threads set" in next(lines(result, applied=True, said={}))


def test_somebody_who_changes_it_all_the_time_is_reported(host: Host) -> None:
    machine = Machine(host)
    spoil(machine)
    world = World({"nfv-1": machine}, meddles=True)
    result = run(host, ["nfv-1"], world.means)["nfv-1"]
    assert (result.state, len(world.orders)) == (MENDED, 1), "the second round put it right"
    machine.pin = "5"
    machine.write()
    stubborn = Means(lambda tid, cpus: None if tid == 4243 else world.set_affinity(tid, cpus), world.record)
    machine.tasks[1].allowed = "9"
    machine.write()
    result = run(host, ["nfv-1"], stubborn)["nfv-1"]
    assert result.state == FAILED
    assert "(4243) stays on 9: somebody else" in result.error
    assert [each["outcome"] for each in host.audit()] == ["enforced", "enforced", "failed"]


def test_a_dry_run_gives_no_dedicated_cpu_twice(tmp_path: Path) -> None:
    host = many(tmp_path, 2)
    host.write("sys/devices/system/cpu/online", "0-15\n")
    host.set_policy(DEDICATED)
    results = run(host, ["nfv-000", "nfv-001"], None)
    cpus = [each.seen.plan.cpus for each in results.values() if each.seen]
    assert len(cpus) == 2
    assert not frozenset.intersection(*(each for each in cpus if each)), cpus
    assert not (tmp_path / "run/emupin/claims").exists()


def test_usage_and_names(host: Host) -> None:
    machine = Machine(host)
    for words in ((), ("--all", "nfv-1")):
        done = emupin(host.root, "apply", *words)
        assert (done.returncode, b"name some, or give --all" in done.stderr) == (2, True)
    done = emupin(host.root, "apply", "--undo", "--all", "--policy", "/nonexistent")
    assert (done.returncode, b"--undo with --policy" in done.stderr) == (2, True)
    assert emupin(host.root, "apply", machine.uuid).returncode == 0
    done = emupin(host.root, "apply", "nfv-2")
    assert (done.returncode, b"did you mean 'nfv-1'?" in done.stderr) == (2, True)
    told = json.loads(emupin(host.root, "apply", "--all", "--json").stdout)
    assert [(each["name"], each["state"], each["changes"]) for each in told["guests"]] == [("nfv-1", "in sync", [])]
    (host.root / "etc/emupin/policy.yaml").unlink()
    done = emupin(host.root, "apply", "--all")
    assert (done.returncode, b"no policy is installed" in done.stderr) == (2, True)


def test_drift_is_quiet_and_about_running_guests_alone(host: Host) -> None:
    """What the udev rule starts; that it changes threads is shown on real kernels."""
    Machine(host)
    host.write("etc/libvirt/qemu/nfv-2.xml", domain_xml("nfv-2", "2-5", STORED))
    done = emupin(host.root, "apply", "--drift")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), "all that runs is in line"
    machine = Machine(host)
    spoil(machine)
    done = emupin(host.root, "apply", "--drift")
    assert done.returncode == 1
    assert done.stdout.startswith(b"nfv-1: ")
    assert b"nfv-2" not in done.stdout
    host.set_policy(POLICY + "    drift: keep\n")
    assert emupin(host.root, "apply", "--drift").stdout == b""
    assert emupin(host.root, "apply", "--all").stdout.startswith(b"nfv-1: drifted"), "asked for, it is told"
    assert emupin(host.root, "apply", "--all", "--drift").returncode == 2
