#!/usr/bin/python3
"""What happens inside the micro VM: guests are started and disturbed, and what the kernel shows is written down.

It judges nothing: each scene is one line of JSON on the second serial port, and the test outside compares. What it
reads it reads without the code under test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
import tty
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from real import inner  # noqa: E402
from real.threads import cpus  # noqa: E402

from microvm.guests import (  # noqa: E402
    APART,
    CARD,
    DEDICATED,
    HOTPLUG,
    NFV,
    NUMA,
    POLICY,
    PREALLOCATED,
    UNION,
    WIDE,
    Guest,
)
from microvm.observed import CGROUP, RUN, STORED, machine_of, observe, pin, recording, threads_of  # noqa: E402

CPU3 = Path("/sys/devices/system/cpu/cpu3")
UEVENTS = 15
"""NETLINK_KOBJECT_UEVENT."""
NODE = Path("/sys/devices/system/node")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/ptmx",
    "/dev/net/tun",
    "/dev/vhost-net",
)
"""What QEMU may open by itself."""


# -- commands ---------------------------------------------------------------------------------------------------------


def run(*argv: str, input: str = "", check: bool = True) -> str:
    done = subprocess.run(
        argv, input=input, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False, cwd="/"
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def virsh(*argv: str, input: str = "") -> str:
    return run("virsh", "-q", *argv, input=input)


def emupin(*argv: str) -> str:
    """Whatever its status, and what it says on stderr, too."""
    return run("sh", "-c", 'emupin "$@" 2>&1; echo "status $?"', "sh", *argv)


def start(guest: Guest) -> dict[str, Any]:
    """What is there when `virsh start` returns."""
    virsh("define", "/dev/stdin", input=guest.xml)
    virsh("start", guest.name)
    return observe(guest)


def record(guest: Guest) -> dict[str, str | None]:
    """The pins in libvirt's definitions, once another than the guest came with is in both."""
    wait_until(lambda: guest.emulatorpin != pin(RUN, guest) == pin(STORED, guest))
    return {"live": pin(RUN, guest), "stored": pin(STORED, guest)}


def wait_until(condition: Any, seconds: float = 120) -> bool:
    """Whether it became true; that it did not is for the test to notice."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def start_libvirtd() -> None:
    run("/usr/sbin/libvirtd", "--daemon", "--pid-file", "/run/libvirtd.pid")
    if not wait_until(lambda: run("virsh", "-q", "uri", check=False)):
        raise RuntimeError("libvirtd does not answer")


def restart_libvirtd() -> None:
    """And wait for the `reconnect` hook of every guest."""
    guests, before = len(virsh("list", "--uuid").split()), logged("op=reconnect")
    pid = Path("/run/libvirtd.pid").read_text().strip()
    run("kill", pid)
    wait_until(lambda: not Path("/proc", pid, "exe").exists())
    start_libvirtd()
    hook = ("pgrep", "--full", "/hooks/.* reconnect begin")
    wait_until(lambda: logged("op=reconnect") >= before + guests and not run(*hook, check=False))


def logged(text: str) -> int:
    return Path("/var/log/libvirt/libvirtd.log").read_text(errors="replace").count(text)


# -- the scenes -------------------------------------------------------------------------------------------------------


class Report:
    """Scenes, a line each, on the second serial port."""

    def __init__(self) -> None:
        self.port = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
        tty.setraw(self.port)

    def add(self, scene: str, **facts: Any) -> None:
        line = json.dumps({"scene": scene, "uptime": uptime(), **facts}, default=sorted) + "\n"
        print(f"{uptime():8.1f} {scene}", flush=True)
        data = line.encode("ascii")
        while data:
            data = data[os.write(self.port, data[:4096]) :]


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def set_up() -> None:
    for place in ("/dev/pts", "/dev/shm", "/run"):
        os.makedirs(place, exist_ok=True)
    inner.mount("-t", "devpts", "devpts", "/dev/pts")
    for place in ("/dev/shm", "/run"):
        inner.mount("-t", "tmpfs", "tmpfs", place)
    inner.mount("-t", "cgroup2", "cgroup2", str(CGROUP))
    os.symlink("/proc/self/fd", "/dev/fd")
    os.symlink("fd/0", "/dev/stdin")
    for place in inner.EMPTY:
        shutil.rmtree(place, ignore_errors=True)
    for place in ("/etc/libvirt/hooks", "/var/lib/libvirt", "/var/log/libvirt", inner.STORE):
        os.makedirs(place)
    inner.QEMU_CONF += f"cgroup_device_acl = [ {', '.join(map(json.dumps, DEVICES))} ]\n"
    inner.make_configuration("micro-vm", "4d1c1a86-58e5-4a5c-8b0b-6c2f5a7d9e10")
    threading.Thread(target=inner.keep_log, daemon=True).start()


def host() -> dict[str, Any]:
    return {
        "kernel": os.uname().release,
        "cpus": sorted(os.sched_getaffinity(0)),
        "nodes": {path.name: (path / "cpulist").read_text().strip() for path in NODE.glob("node[0-9]*")},
        "controllers": (CGROUP / "cgroup.controllers").read_text().split(),
        "vhost": os.path.exists("/dev/vhost-net"),
    }


def install() -> None:
    run("sh", str(TESTS.parent / "install.sh"))
    inner.write("/etc/emupin/policy.yaml", POLICY)
    os.chmod("/etc/emupin/policy.yaml", 0o600)


def spoil(guest: Guest) -> None:
    """As `virsh emulatorpin --live` with Nova's default, and somebody's taskset after it, would leave it."""
    (machine_of(guest) / "emulator" / "cpuset.cpus").write_text(UNION)
    for thread in threads_of(guest):
        if thread["kind"] in ("emulator", "outside"):
            os.sched_setaffinity(thread["tid"], cpus(UNION))


def play(report: Report) -> None:
    set_up()
    report.add("host", **host())
    start_libvirtd()
    report.add("before", **start(NFV))
    emulator = machine_of(NFV) / "emulator" / "cpuset.cpus"
    emulator.write_text("0,2")
    report.add("cgroup alone", **observe(NFV))
    emulator.write_text(UNION)

    install()
    restart_libvirtd()
    report.add("taken over", **observe(NFV))
    report.add("taken over, recorded", **record(NFV))
    report.add("recording", **recording(NFV))

    report.add("wide", **start(WIDE))
    report.add("wide, recorded", **record(WIDE))
    spoil(NFV)
    report.add("spoilt", **observe(NFV))
    (CGROUP / "machine" / "cpuset.cpus").write_text("0-1,3")
    restart_libvirtd()
    report.add("mended", **observe(NFV))
    report.add("parent without the CPU", **observe(WIDE))
    (CGROUP / "machine" / "cpuset.cpus").write_text("0-3")
    virsh("destroy", WIDE.name)
    play_vhost(report)

    for guest in (DEDICATED, NUMA):
        report.add(guest.name, **start(guest))
        report.add(f"{guest.name}, recorded", **record(guest))
        virsh("destroy", guest.name)
    play_preallocated(report)
    play_hotplug(report)
    report.add("end", syslog=Path(inner.STORE, "syslog").read_text(errors="replace").splitlines())


def play_vhost(report: Report) -> None:
    """vhost workers apart from the emulator: at `reconnect`, after libvirt's own call, at a start; and a late card."""
    inner.write("/etc/emupin/policy.yaml", APART)
    restart_libvirtd()
    report.add("vhost apart", **observe(NFV))
    for command in CARD:
        virsh("qemu-monitor-command", NFV.name, "--hmp", command)
    report.add("vhost, a late card", said=emupin("status", NFV.name), **observe(NFV))
    report.add("vhost, a late card, applied", said=emupin("apply", NFV.name, "--yes"), **observe(NFV))
    virsh("emulatorpin", NFV.name, UNION, "--live")
    report.add("vhost, pinned by hand", **observe(NFV))
    restart_libvirtd()
    report.add("vhost, recorded", **record(NFV))
    wait_until(lambda: apart(NFV))
    report.add("vhost apart, again", **observe(NFV))
    virsh("destroy", NFV.name)
    virsh("start", NFV.name)
    report.add("vhost apart, started", **observe(NFV))
    virsh("destroy", NFV.name)
    inner.write("/etc/emupin/policy.yaml", POLICY)


def apart(guest: Guest) -> bool:
    """Whether the cgroup of its emulator threads is as wide again as they and the workers need, and both are there."""
    wide = (machine_of(guest) / "emulator" / "cpuset.cpus").read_text().strip() == "0,3"
    return wide and {tuple(each["allowed"]) for each in threads_of(guest) if "vhost" in each["name"]} == {(3,)}


def play_preallocated(report: Report) -> None:
    """A guest that libvirt 9.0.0 cannot start with the pin that is planned: start, again, save, restore."""
    report.add("preallocated", **start(PREALLOCATED))
    time.sleep(10)  # Whoever would record it has done so by now.
    report.add("preallocated, recorded", live=pin(RUN, PREALLOCATED), stored=pin(STORED, PREALLOCATED))
    virsh("destroy", PREALLOCATED.name)
    virsh("start", PREALLOCATED.name)
    report.add("preallocated, again", **observe(PREALLOCATED))
    virsh("save", PREALLOCATED.name, "/var/lib/image")
    virsh("restore", "/var/lib/image")
    report.add("preallocated, restored", **observe(PREALLOCATED))
    virsh("destroy", PREALLOCATED.name)
    virsh("emulatorpin", PREALLOCATED.name, "0", "--config")
    failed = run("sh", "-c", f"virsh start {PREALLOCATED.name} 2>&1", check=False)
    corrected = wait_until(lambda: pin(STORED, PREALLOCATED) != "0")
    report.add("preallocated, its own pin", failed=failed, corrected=corrected, stored=pin(STORED, PREALLOCATED))
    virsh("start", PREALLOCATED.name)
    report.add("preallocated, corrected", **observe(PREALLOCATED))
    virsh("destroy", PREALLOCATED.name)


def play_hotplug(report: Report) -> None:
    """A CPU goes and comes back; between the two, whoever runs udev and systemd has done what the rule says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, UEVENTS) as events:
        events.bind((os.getpid(), 1))
        events.settimeout(60)
        report.add("hotplug", **start(HOTPLUG))
        report.add("hotplug, recorded", **record(HOTPLUG))
        for scene, value in (("offline", "0"), ("online", "1")):
            (CPU3 / "online").write_text(value)
            event = udev_pretended(events)
            report.add(f"hotplug, {scene}", event=event, **observe(HOTPLUG))
    virsh("destroy", HOTPLUG.name)


def udev_pretended(events: socket.socket) -> dict[str, str]:
    """Wait for the kernel's event that the installed rule is for, and do what systemd does with the service."""
    rule, service = (TESTS.parent / "packaging" / name for name in ("60-emupin.rules", "emupin-drift.service"))
    words = dict(re.findall(r'(\w+)=="([^"]*)"', rule.read_text()))
    while True:
        fields = events.recv(65536).decode(errors="replace").split("\0")
        event = dict(field.split("=", 1) for field in fields if "=" in field)
        if event.get("SUBSYSTEM") == words["SUBSYSTEM"] and event.get("ACTION") in words["ACTION"].split("|"):
            break
    command = re.search("^ExecStart=(.*)$", service.read_text(), re.M)
    assert command
    return {**event, "said": run("sh", "-c", f"{command[1]} 2>&1", check=False)}


def main() -> None:
    report = Report()
    try:
        play(report)
    except Exception:
        # The console is all that the outside sees of a failure in here.
        traceback.print_exc()
        print(run("tail", "-n", "20", "/var/log/libvirt/libvirtd.log", check=False), flush=True)
        raise


if __name__ == "__main__":
    main()
