"""libvirtd comes back to running guests: `reconnect` mends their placement, and never costs a guest its life."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .expect import FIRST, UNION, complaints, emulator_cpus, live_pin, policy, recorded, running, start
from .guests import CPUS, Guest
from .host import PrivateHost, eventually

LIBRARY = "/usr/local/lib/emupin/emupin"
HOOK = "/etc/libvirt/hooks/qemu"


def spoil(host: PrivateHost, guest: Guest) -> None:
    """Give every emulator thread the CPUs of the vCPUs, as an administrator's `taskset` would."""
    cpus = ",".join(map(str, sorted(UNION)))
    threads = [thread for thread in host.threads(guest.name) if thread.kind == "emulator"]
    group = next((thread.cgroup for thread in threads if thread.cgroup), "")
    if group:
        inside = group[group.index("/machine") :]
        folder = "/sys/fs/cgroup/cpuset" if host.cgroup == "v1" else "/sys/fs/cgroup"
        host.path(f"{folder}{inside}/cpuset.cpus").write_text(cpus)
    for thread in threads:
        host.run("taskset", "--pid", "--cpu-list", cpus, str(thread.tid))
    assert emulator_cpus(host, guest) == {UNION}


def fill_disks(host: PrivateHost) -> None:
    """No byte is left for the audit trail, the compiled policies and the state."""
    for folder in ("/var/log/emupin", "/run/emupin", "/var/lib/emupin"):
        script = f"mkdir -p {folder}; mount -t tmpfs -o size=8k,mode=700 full {folder}; cat /dev/zero >{folder}/zero"
        host.run("sh", "-c", script, check=False)


def break_policy(host: PrivateHost) -> None:
    host.set_policy("version: 1\nrules: [{name: nfv, placement: ['vcpu:zero']\n")


def break_syntax(host: PrivateHost) -> None:
    host.write(f"{LIBRARY}/hook.py", "def main(:\n")


def break_process(host: PrivateHost) -> None:
    host.write(f"{LIBRARY}/hook.py", "import os\nos.kill(os.getpid(), 9)\n")


def remove_library(host: PrivateHost) -> None:
    host.run("rm", "-r", LIBRARY)


def remove_interpreter(host: PrivateHost) -> None:
    hook = host.path(HOOK).read_text()
    assert "\npython=/usr/bin/python3\n" in hook
    host.write(HOOK, hook.replace("\npython=/usr/bin/python3\n", "\npython=/nonexistent/python3\n"), 0o755)


def test_reconnect_mends_a_spoilt_placement(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    each_host.install(policy())
    start(each_host, guest)
    assert recorded(each_host, guest)
    spoil(each_host, guest)
    each_host.restart_libvirtd()
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert running(each_host, guest)


def test_reconnect_takes_guests_that_were_there_before_the_hook(each_host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    start(each_host, guest)
    each_host.install(policy())
    assert emulator_cpus(each_host, guest) == {UNION}
    each_host.restart_libvirtd()
    assert emulator_cpus(each_host, guest) == {FIRST}
    assert recorded(each_host, guest)


def test_a_hook_that_fails_on_reconnect_costs_the_guest_its_life(host: PrivateHost) -> None:
    """What libvirt does, and proof that the tests below can fail."""
    guest = Guest("nfv-1")
    start(host, guest)
    host.write(HOOK, '#!/bin/sh\n[ "$2" != reconnect ]\n', 0o755)
    host.restart_libvirtd()
    assert eventually(lambda: not running(host, guest))


@pytest.mark.parametrize(
    "trouble", [break_policy, fill_disks, break_syntax, break_process, remove_library, remove_interpreter]
)
def test_trouble_kills_no_guest_and_stops_no_start(host: PrivateHost, trouble: Callable[[PrivateHost], None]) -> None:
    guest, later = Guest("nfv-1"), Guest("nfv-2")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    pid = host.pid(guest.name)
    trouble(host)
    host.restart_libvirtd()
    assert complaints(host), "nobody was told"
    start(host, later)
    assert running(host, later)
    assert running(host, guest)
    assert host.pid(guest.name) == pid


@pytest.mark.parametrize("trouble", [break_policy, fill_disks])
def test_trouble_that_leaves_the_engine_whole_stops_no_placement(
    host: PrivateHost, trouble: Callable[[PrivateHost], None]
) -> None:
    """An invalid policy leaves the last good one in force; a full disk is no reason to lose packets."""
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("destroy", guest.uuid)
    host.virsh("undefine", guest.uuid)
    trouble(host)
    start(host, guest)
    assert emulator_cpus(host, guest) == {FIRST}
    assert complaints(host), "nobody was told"
    assert not [line for line in complaints(host) if "None:" in line], "each complaint names its file"
    assert eventually(lambda: live_pin(host, guest) == str(CPUS[0]))


def test_stop_and_undefine_with_a_broken_library(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    break_syntax(host)
    host.virsh("destroy", guest.uuid)
    host.virsh("undefine", guest.uuid)
    assert host.virsh("list", "--all", "--name").stdout.split() == []


def test_hook_that_hangs_ends_by_itself(host: PrivateHost) -> None:
    guest = Guest("nfv-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    with host.path(f"{LIBRARY}/engine/hostcache.py").open("a") as module:
        module.write("\n\ndef read_cached(*_):\n    import time\n\n    time.sleep(60)\n")
    begin = time.monotonic()
    host.restart_libvirtd()
    assert 5 < time.monotonic() - begin < 12
    assert running(host, guest)
    assert any("seconds" in line for line in complaints(host))
