"""`emupin status` on real guests: each kind of drift made by hand is found, with its cause and status 1."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emupin.live.causes import NOT_PLACED

from .expect import define, emulator_cpus, inactive_pin, live_pin, of_kind, policy, recorded, start
from .guests import CPUS, Guest, draw, write_disk
from .host import PrivateHost, eventually

FIRST, SECOND = str(CPUS[0]), str(CPUS[1])
BOTH = ",".join(map(str, CPUS[:2]))
PRINTED = f"{FIRST}-{SECOND}" if CPUS[1] == CPUS[0] + 1 else BOTH
EMUPIN = "/usr/local/bin/emupin"
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
"""Of QEMU 7.2; libvirt finds it by QEMU's own description of it."""


def status(host: PrivateHost, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of the first guest."""
    done = host.run(EMUPIN, "status", "--json", *words, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["guests"][0]


def said(host: PrivateHost) -> dict[str, set[str]]:
    """The causes by where the drift is; the exit status goes with it."""
    code, guest = status(host)
    found: dict[str, set[str]] = {}
    for drift in guest["drifts"]:
        found.setdefault(drift["where"], set()).add(drift["cause"])
    assert code == int(bool(found))
    assert guest["in_line"] == (not found)
    return found


def placed(host: PrivateHost, guest: Guest) -> None:
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    assert said(host) == {}


def cpus(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",")))


def test_every_thread_is_shown_and_a_live_pin_is_found(each_host: PrivateHost) -> None:
    disk = "/var/lib/libvirt/boot.img"
    write_disk(each_host.path(disk))
    guest = Guest("nfv-1", disks=(disk,), iothread=True)
    placed(each_host, guest)
    _, found = status(each_host)
    shown = {
        each["tid"]: (each["kind"] + str("" if each["number"] is None else each["number"]), each["allowed"])
        for each in found["threads"]
    }
    real = {each.tid: (each.kind, ",".join(map(str, sorted(each.allowed)))) for each in each_host.threads("nfv-1")}
    both = shown.keys() & real.keys()
    assert {tid: shown[tid] for tid in both} == {tid: real[tid] for tid in both}
    assert len(both) >= 5
    assert (found["live_pin"], found["persistent_pin"], found["persistent_definition"]) == (FIRST, FIRST, "persistent")
    each_host.virsh("emulatorpin", guest.uuid, SECOND, "--live")
    drifts = said(each_host)
    assert drifts["live XML"] == {"`virsh emulatorpin --live` only: the persistent XML is right"}
    if each_host.cgroup == "none":
        alone = "`virsh emulatorpin --live`, which moves the main thread only where there is no cpuset cgroup"
        assert drifts["thread"] == {alone}


def test_thread_set_by_hand(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    each_host.install(policy(f"cpus:{BOTH}", checks="{vcpu_overlap: 'off'}"))
    start(each_host, guest)
    assert eventually(lambda: said(each_host) == {})
    pid = each_host.pid("nfv-1")
    stray = max(each.tid for each in of_kind(each_host.threads("nfv-1"), "emulator") if each.tid != pid)
    each_host.run("taskset", "-pc", SECOND, str(stray))
    code, found = status(each_host)
    cause = (
        "set by hand (taskset), or started by a thread that was"
        if each_host.cgroup == "none"
        else "set by hand (taskset): the cgroup is right"
    )
    assert [(each["tid"], each["found"], each["cause"]) for each in found["drifts"]] == [(stray, SECOND, cause)]
    text = each_host.run(EMUPIN, "status", check=False).stdout
    marked = [line.split()[2] for line in text.splitlines() if line.startswith("!  ")]
    assert (code, marked) == (1, [str(stray)])
    assert f"! on {SECOND}, planned {PRINTED}: thread {stray}: {cause}\n" in text


def test_cgroup_written_and_definition_written_anew(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    placed(host, guest)
    group = host.path(status(host)[1]["cgroup"]["path"] + "/cpuset.cpus")
    group.write_text(SECOND)
    cause = "the cpuset cgroup was written by hand: libvirt's XML is right"
    assert said(host) == {"thread": {cause}, "cgroup": {cause}}
    group.write_text(FIRST)
    define(host, replace(guest, emulatorpin=None))
    assert (live_pin(host, guest), inactive_pin(host, guest)) == (FIRST, None)
    cause = "the definition was written anew without a pin (`virsh define`, an orchestrator)"
    assert said(host) == {"persistent XML": {cause}}


def test_pin_changed_with_virsh(host: PrivateHost) -> None:
    """Live only, then persistent only, then both."""
    guest = Guest("nfv-1")
    placed(host, guest)
    host.virsh("emulatorpin", guest.uuid, SECOND, "--live")
    cause = "`virsh emulatorpin --live` only: the persistent XML is right"
    assert said(host) == {key: {cause} for key in ("thread", "cgroup", "live XML")}
    host.virsh("emulatorpin", guest.uuid, FIRST, "--live")
    assert said(host) == {}
    host.virsh("emulatorpin", guest.uuid, SECOND, "--config")
    cause = "`virsh emulatorpin --config` only: the live XML is right, or the definition was written anew"
    assert said(host) == {"persistent XML": {cause}}
    host.virsh("emulatorpin", guest.uuid, SECOND, "--live", "--config")
    cause = "`virsh emulatorpin --live --config`"
    assert said(host) == {key: {cause} for key in ("thread", "cgroup", "live XML", "persistent XML")}


def test_vcpu_pinned_elsewhere(host: PrivateHost) -> None:
    """The persistent definition has vCPUs, and so a plan, of its own."""
    guest = Guest("nfv-1", vcpus=1)
    placed(host, guest)
    host.virsh("vcpupin", guest.uuid, "0", SECOND, "--live")
    cause = "vCPUs were re-pinned (`virsh vcpupin`): the plan has changed"
    assert said(host) == {key: {cause} for key in ("thread", "cgroup", "live XML")}, (
        "the persistent definition has its own vCPUs"
    )


def test_vcpu_plugged_in(host: PrivateHost) -> None:
    """The new one is the one whose CPU the emulator has: the plan has nowhere to go."""
    guest = Guest("nfv-1", vcpus=1)
    xml = guest.xml.replace("<vcpu>1</vcpu>", "<vcpu current='1'>2</vcpu>")
    host.install(policy())
    host.virsh("define", "/dev/stdin", input=xml)
    host.virsh("start", guest.uuid)
    assert recorded(host, guest)
    assert said(host) == {}
    host.virsh("setvcpus", guest.uuid, "2", "--live")
    host.virsh("vcpupin", guest.uuid, "1", FIRST, "--live")
    code, found = status(host)
    assert code == 1
    assert found["plan"]["failed"]
    assert found["plan"]["reason"].endswith("(vCPUs were plugged in or out and re-pinned (`virsh vcpupin`))")
    new = [each for each in found["threads"] if (each["kind"], each["number"]) == ("vcpu", 1)]
    assert [each["allowed"] for each in new] == [FIRST]


def test_guest_started_without_the_hook_and_others(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    start(host, guest)
    host.install(policy(checks="{foreign_overlap: 'off'}"))
    cause = NOT_PLACED
    assert said(host) == {key: {cause} for key in ("thread", "cgroup", "live XML", "persistent XML")}
    host.virsh("destroy", guest.uuid)
    start(host, Guest("other"))
    assert status(host)[1]["plan"]["reason"] == "no rule matches"
    assert said(host) == {}
    transient = Guest("nfv-2")
    host.virsh("create", "/dev/stdin", input=transient.xml)
    assert eventually(lambda: live_pin(host, transient) == FIRST)
    code, found = status(host, transient.uuid)
    assert (code, found["name"], found["persistent_definition"]) == (0, "nfv-2", "transient")
    wrong = host.run(EMUPIN, "status", "nfv-3", check=False)
    assert wrong.returncode == 2
    assert "did you mean 'nfv-2'?" in wrong.stderr


def test_rates_agree_with_the_kernel(host: PrivateHost) -> None:
    """A thread of QEMU's that does nothing else is made to work: its rates against two looks at /proc."""
    disk = "/var/lib/libvirt/boot.img"
    write_disk(host.path(disk))
    guest = Guest("nfv-1", disks=(disk,))
    placed(host, guest)
    assert emulator_cpus(host, guest) == {cpus(FIRST)}
    pid = host.pid("nfv-1")
    watching = host.begin("timeout", "-s", "INT", "5", EMUPIN, "status", "--json", "--watch", "2")
    assert watching.stdout
    time.sleep(0.5)
    before, start_of = _proc(host, pid), time.monotonic()
    for _ in range(20):
        time.sleep(0.1)
    after, seconds = _proc(host, pid), time.monotonic() - start_of
    lines = watching.communicate(timeout=30)[0].splitlines()
    assert watching.returncode == 124, "timeout says so of a command that it ended"
    threads = json.loads(lines[0])["guests"][0]["threads"]
    rates = next(each["per_second"] for each in threads if each["tid"] == pid)
    run, switches = (after[0] - before[0]) / 1e9 / seconds, (after[1] - before[1]) / seconds
    assert abs(rates["run"] - run) <= 0.1 + 0.3 * run
    assert abs(rates["voluntary"] - switches) <= 20 + 0.3 * switches
    assert switches > 0, "the guest does nothing"


def _proc(host: PrivateHost, pid: int) -> tuple[int, int]:
    """Run time in nanoseconds and voluntary switches of the main thread."""
    folder = host.path(f"/proc/{pid}/task/{pid}")
    switches = folder.joinpath("status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]
    return int(folder.joinpath("schedstat").read_text().split()[0]), int(switches)


@pytest.mark.skipif(not shutil.which("pidstat"), reason="needs pidstat (sysstat)")
def test_rates_agree_with_pidstat(host: PrivateHost) -> None:
    """A guest whose screen is sent again and again, and which never waits: every thread, over the same seconds."""
    disk, screen = "/var/lib/libvirt/boot.img", "/var/lib/libvirt/vnc.sock"
    write_disk(host.path(disk), busy=True)
    guest = Guest("nfv-1", disks=(disk,), vnc=screen)
    placed(host, guest)
    pid, stop = host.pid("nfv-1"), threading.Event()
    viewer = threading.Thread(target=_look_at, args=(host.path(screen), stop))
    viewer.start()
    try:
        watching = host.begin("timeout", "-s", "INT", "8", EMUPIN, "status", "--json", "--watch", "4")
        measuring = host.begin("pidstat", "-t", "-u", "-w", "-h", "-H", "-p", str(pid), "4", "1")
        theirs = _of_pidstat(measuring.communicate(timeout=30)[0])
        lines = watching.communicate(timeout=30)[0].splitlines()
    finally:
        stop.set()
        viewer.join()
    threads = json.loads(lines[0])["guests"][0]["threads"]
    ours = {each["tid"]: each["per_second"] for each in threads if each["per_second"]}
    both = ours.keys() & theirs.keys()
    assert pid in both
    assert len(both) >= 4
    for tid in both:
        run, voluntary, involuntary = theirs[tid]
        assert abs(ours[tid]["run"] - run) <= 0.05 + 0.25 * run, (tid, ours[tid], theirs[tid])
        assert abs(ours[tid]["voluntary"] - voluntary) <= 10 + 0.25 * voluntary, (tid, ours[tid], theirs[tid])
        assert abs(ours[tid]["involuntary"] - involuntary) <= 20 + 0.5 * involuntary, (tid, ours[tid], theirs[tid])
    assert sum(theirs[tid][0] for tid in both) > 0.05, "the guest does nothing"


def _look_at(screen: Path, stop: threading.Event) -> None:
    while not stop.is_set():
        draw(screen)
        time.sleep(0.02)


def _of_pidstat(text: str) -> dict[int, tuple[float, float, float]]:
    """Part of the time on a CPU, voluntary and involuntary switches a second, by thread."""
    rows = [line.split() for line in text.splitlines() if re.match(r"\d+ ", line.strip())]
    return {int(row[3]): (float(row[8]) / 100, float(row[10]), float(row[11])) for row in rows if row[3] != "-"}


@pytest.mark.skipif(not VIRTIOFSD.exists(), reason="needs the virtiofsd of QEMU before 8.0")
def test_helpers_are_shown_and_are_no_drift(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    folder = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/var/lib/libvirt'/><target dir='x'/>"
    xml = guest.xml.replace("<vcpu>", f"{shared}<vcpu>").replace("<memballoon", f"{folder}</filesystem><memballoon")
    each_host.install(policy())
    each_host.virsh("define", "/dev/stdin", input=xml)
    each_host.virsh("start", guest.uuid)
    assert recorded(each_host, guest)
    pids = {int(pid) for pid in each_host.run("pgrep", "virtiofsd").stdout.split()}
    code, found = status(each_host)
    helpers = {each["tid"]: each for each in found["threads"] if each["kind"] == "helper"}
    assert code == 0
    assert len(pids) == 2, "it works in a child"
    assert pids <= helpers.keys()
    assert {each["name"] for each in helpers.values()} == {"virtiofsd"}
    assert {each["expected"] for each in helpers.values()} == {None}
    real = {tid: each_host.run("taskset", "-pc", str(tid)).stdout.rpartition(": ")[2].strip() for tid in pids}
    assert {tid: cpus_of(helpers[tid]["allowed"]) for tid in pids} == {tid: cpus_of(real[tid]) for tid in pids}
    for tid in helpers:
        each_host.run("taskset", "-pc", SECOND if each_host.cgroup == "none" else FIRST, str(tid))
    assert said(each_host) == {}
    if each_host.cgroup == "none":
        each_host.run(EMUPIN, "apply", "--all", "--yes")
        assert {each_host.run("taskset", "-pc", str(tid)).stdout.split()[-1] for tid in pids} == {SECOND}


def cpus_of(text: str) -> set[int]:
    runs = [run.split("-") for run in text.split(",")]
    return {cpu for run in runs for cpu in range(int(run[0]), int(run[-1]) + 1)}
