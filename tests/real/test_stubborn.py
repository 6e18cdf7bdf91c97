"""Threads that do not go where they should, or that cannot be told: the others do, and each is named with its cause."""

from __future__ import annotations

import pytest

from .expect import emulator_cpus, of_kind, policy, recorded, start
from .guests import CPUS, Guest
from .host import PrivateHost, eventually
from .test_status import EMUPIN, FIRST, SECOND, said, status
from .threads import cpus

DEBUG_OFF = "<qemu:commandline><qemu:arg value='-name'/><qemu:arg value='debug-threads=off'/></qemu:commandline>"


def shield(host: PrivateHost, tid: int) -> None:
    """What `cset shield` does: a cpuset beside libvirt's, and a thread put into it."""
    host.run(
        "sh", "-ec", f"cd /sys/fs/cgroup/cpuset; mkdir -p user; cat cpuset.mems >user/cpuset.mems; "
        f"echo {SECOND} >user/cpuset.cpus; echo {tid} >user/tasks",
    )  # fmt: skip


@pytest.mark.parametrize("on_failure", ["start", "refuse"])
def test_a_thread_in_another_cpuset_stops_no_other(host: PrivateHost, on_failure: str) -> None:
    if host.cgroup != "v1":
        pytest.skip("cset works with cgroup v1")
    guest = Guest("nfv-1", iothread=True)
    host.install(policy(on_failure=on_failure))
    start(host, guest)
    assert recorded(host, guest)
    main = host.pid(guest.name)
    stray = next(each.tid for each in host.threads(guest.name) if each.kind == "emulator" and each.tid != main)
    shield(host, stray)
    host.run("sh", "-ec", f"echo {SECOND} >$(find /sys/fs/cgroup/cpuset -path '*qemu*/emulator')/cpuset.cpus")
    (cause,) = [each["cause"] for each in status(host)[1]["drifts"] if each["tid"] == stray]
    assert cause.startswith("it was moved out of the guest's cgroup: somebody (cset, vfio-isolate or the like) put it")
    assert cause.endswith("/user")
    host.restart_libvirtd()
    assert {each.tid: each.allowed for each in host.threads(guest.name) if each.kind == "emulator"}[main] == {CPUS[0]}
    assert host.virsh("domstate", guest.uuid).stdout.strip() == "running", "reconnect refuses nothing"
    reason = str(host.audit()[-1]["reason"])
    assert f"({stray}) stays on {SECOND}: somebody moved it to the cgroup" in reason
    done = host.run(EMUPIN, "apply", "--yes", guest.uuid, check=False)
    assert done.returncode == 2
    assert f"({stray}) stays on {SECOND}" in done.stdout + done.stderr


@pytest.mark.parametrize("pin", [SECOND, None], ids=["pinned", "not pinned"])
def test_a_nameless_iothread_keeps_its_cpus(no_cgroup: PrivateHost, pin: str | None) -> None:
    host, guest = no_cgroup, Guest("nfv-1", iothread=True)
    head = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
    xml = guest.xml.replace("<domain type='qemu'>", head).replace("</domain>", f"{DEBUG_OFF}</domain>")
    if pin is None:
        xml = xml.replace(f"<iothreadpin iothread='1' cpuset='{CPUS[1]}'/>", "")
    host.install(policy(on_failure="refuse"))
    host.virsh("define", "/dev/stdin", input=xml)
    host.virsh("start", guest.uuid)
    assert recorded(host, guest)
    threads = {each.tid: each for each in host.threads(guest.name)}
    assert not [each for each in threads.values() if each.name.startswith("IO ")], "QEMU names no thread"
    iothread = host.run(
        "virsh", "-q", "qemu-monitor-command", guest.uuid, '{"execute":"query-iothreads"}'
    ).stdout.partition('"thread-id":')[2].partition(",")[0].strip("} ]\n")  # fmt: skip
    assert threads[int(iothread)].allowed == cpus(pin or f"{FIRST},{SECOND}")
    assert threads[host.pid(guest.name)].allowed == {CPUS[0]}
    told = [line for line in host.syslog() if "it may be an iothread" in line]
    assert bool(told) == (pin is None)
    kinds = {each["tid"]: each["kind"] for each in status(host)[1]["threads"]}
    assert kinds[int(iothread)] == ("iothread" if pin else "unknown")


def test_an_iothread_that_was_added_is_no_handiwork(each_host: PrivateHost) -> None:
    host, guest = each_host, Guest("nfv-1", iothread=True)
    host.install(policy().replace("persist: true", "persist: true, iothreads: follow"))
    start(host, guest)
    assert recorded(host, guest)
    assert eventually(lambda: said(host) == {})
    host.virsh("iothreadadd", guest.uuid, "2", "--live", "--config")
    cause = "it was added since (`virsh iothreadadd`), or the policy had iothreads stay where they are"
    found = said(host)
    assert {each for causes in found.values() for each in causes} == {cause}
    assert {"live XML", "persistent XML", "thread"} <= found.keys()
    host.run(EMUPIN, "apply", "--yes", guest.uuid)
    assert said(host) == {}
    assert {each.allowed for each in of_kind(host.threads(guest.name), "iothread")} == {frozenset(CPUS[:1])}


NOTE = "<info><note:text xmlns:odd='http://odd.example/a b' odd:x='y'>x</note:text></info>"
"""libvirt takes and prints a prefix that stands for nothing, and a namespace with a blank."""
SMILE = "<info><\N{GRINNING FACE}/></info>"
"""A name of XML 1.0's fifth edition, which libxml2 reads and expat does not."""


@pytest.mark.parametrize("metadata", [NOTE, SMILE], ids=["unbound prefix", "unreadable name"])
def test_what_one_guest_carries_costs_no_other(host: PrivateHost, metadata: str) -> None:
    odd, other = Guest("nfv-odd"), Guest("nfv-other")
    host.install(policy(f"cpus:{FIRST}", checks="{foreign_overlap: 'off'}"))
    start(host, odd)
    assert recorded(host, odd)
    host.virsh("metadata", odd.uuid, "--live", "--uri", "http://app.example/1", "--key", "app", "--set", metadata)
    written = host.path(f"/run/libvirt/qemu/{odd.name}.xml").read_text(encoding="utf-8")
    assert ("<app:note:text " if metadata == NOTE else SMILE[7:9]) in written
    start(host, other)
    assert recorded(host, other), "another guest is decided, placed and recorded as ever"
    assert emulator_cpus(host, other) == {frozenset(CPUS[:1])}
    assert host.run(EMUPIN, "status", other.uuid, check=False).returncode == 0
    done = host.run(EMUPIN, "status", check=False)
    assert done.returncode == (0 if metadata == NOTE else 2)
    assert other.name in done.stdout
    host.restart_libvirtd()
    for guest in (odd, other):
        assert host.virsh("domstate", guest.uuid).stdout.strip() == "running"
    assert f"<emulatorpin cpuset='{FIRST}'/>" in host.virsh("dumpxml", odd.uuid).stdout
