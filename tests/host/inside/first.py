"""The first boot: emupin comes to a host on which a guest runs, works there, goes, and comes again as an upgrade."""

from __future__ import annotations

import re
from pathlib import Path

from host.inside.guests import CGROUP, Guest
from host.inside.kit import (
    NEW,
    audit,
    check,
    emupin,
    emupin_json,
    eventually,
    journal,
    read,
    release,
    run,
    same,
    virsh,
    write,
)

NFV = Guest("nfv-1", ("2", "3"), "2-3", confined=True)
"""As Nova leaves it: its emulator threads on the CPUs of all its vCPUs."""
WEB = Guest("web-1", ("3",))
POLICY = """\
version: 1
host: {networking: kernel, reserved: "0", pool: "1"}
rules:
  - {name: nfv, match: {name: "nfv-*", pinned: true}, placement: "vcpu:0"}
  - {name: web, match: {name: "web-*"}, guest: kernel, placement: dedicated}
  - {name: moves, match: {name: "moves-*"}, placement: ["cpus:1", "cpus:2"], checks: {foreign_overlap: warn}}
  - {name: wide, match: {name: "wide-*"}, placement: "cpus:2-3"}
"""
WITNESS = Path("/etc/libvirt/hooks/qemu.d/99-witness")
SCRIPT = """\
#!/bin/sh
read -r shell </proc/$$/attr/current
python=$(/usr/bin/python3 -c 'print(open("/proc/self/attr/current").read().strip())')
echo "$2|$shell|$python" >>/var/log/witness.log
"""
"""A second hook, which libvirt runs as it runs ours: what AppArmor makes of its shell and its Python."""
HOOK = Path("/etc/libvirt/hooks/qemu")


def libvirtd() -> str:
    """Its process id; `virsh` wakes it where nobody needed it for two minutes."""
    virsh("uri")
    return run("systemctl", "show", "--property=MainPID", "--value", "libvirtd.service").strip()


def restart_libvirtd() -> None:
    before = libvirtd()
    run("systemctl", "restart", "libvirtd.service")
    assert libvirtd() != before


def complaints() -> list[str]:
    """What `doctor` finds wrong; a host without a network cannot set its clock, which it may say."""
    found = emupin_json("doctor")["findings"]
    return [each["what"] for each in found if each["level"] in ("problem", "warning") and each["area"] != "clock"]


def all_is_well() -> None:
    same(complaints(), [], "doctor")


def the_trail_holds() -> None:
    emupin("audit", "verify")
    emupin("audit", "replay")


@check(1)
def the_machine_is_the_one_that_was_ordered() -> None:
    same(read("/proc/1/comm"), "systemd")
    same(run("stat", "-f", "-c", "%T", str(CGROUP)).strip(), "cgroup2fs")
    assert "cpuset" in read(CGROUP / "cgroup.controllers")
    same([read(f"/sys/devices/system/node/node{node}/cpulist") for node in (0, 1)], ["0-1", "2-3"])
    same(run("systemctl", "is-system-running", "--wait").strip(), "running")
    same(read("/sys/module/apparmor/parameters/enabled"), "Y")
    assert "libvirtd (enforce)" in read("/sys/kernel/security/apparmor/profiles")
    wanted = {"12": "libvirt 9.0.", "13": "libvirt 11.3."}[release()]
    assert f"Using library: {wanted}" in virsh("version"), virsh("version")
    same(read(f"/proc/{libvirtd()}/attr/current"), "libvirtd (enforce)")


@check(1)
def without_emupin_emulator_threads_share_the_cpus_of_the_vcpus() -> None:
    """What the project is for; and proof that the checks below can fail."""
    NFV.define()
    NFV.start()
    NFV.must_be_on("2-3")
    assert re.search(r"/machine\.slice/machine-qemu.*\.scope/libvirt/emulator$", str(NFV.group)), NFV.group


@check(1)
def install_reloads_libvirtd_and_changes_nothing_the_second_time() -> None:
    daemon, guest = libvirtd(), NFV.pid
    run(str(NEW / "install.sh"), "--check", status=1)
    run(str(NEW / "install.sh"))
    assert "changed" not in run(str(NEW / "install.sh"))
    same((libvirtd(), NFV.pid), (daemon, guest))
    same((HOOK.stat().st_mode & 0o777, HOOK.stat().st_uid), (0o755, 0))
    assert Path("/etc/logrotate.d/emupin").exists()
    NFV.must_be_on("2-3")


@check(1)
def the_policy_is_valid_here() -> None:
    write("/etc/emupin/policy.yaml", POLICY, 0o600)
    write(WITNESS, SCRIPT, 0o755)
    run("systemctl", "reload", "libvirtd.service")
    emupin("policy", "check")
    same(emupin_json("host")["pool"], "1")


@check(1)
def a_new_guest_is_placed_when_virsh_start_returns() -> None:
    WEB.define()
    WEB.start()
    WEB.must_be_on("1")
    assert ("started", "enforced") in audit(WEB.name), audit(WEB.name)
    WEB.must_be_recorded("1")
    WEB.must_be_on("1")
    same(virsh("emulatorpin", WEB.name).split()[-1], "1")


@check(1)
def the_hook_runs_in_the_profile_of_libvirtd() -> None:
    seen = {line.split("|")[0]: line.split("|")[1:] for line in read("/var/log/witness.log").splitlines()}
    same(sorted(seen), ["prepare", "start", "started"])
    same(set(map(tuple, seen.values())), {("libvirtd (enforce)", "unconfined")})
    WITNESS.unlink()


@check(1)
def a_restart_of_libvirtd_places_the_guest_that_was_there_before() -> None:
    emupin("status", NFV.name, status=1)
    pids = NFV.pid, WEB.pid
    restart_libvirtd()
    eventually(lambda: ("reconnect", "enforced") in audit(NFV.name), "a reconnect of nfv-1")
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    WEB.must_be_on("1")
    same((NFV.pid, WEB.pid), pids)


@check(1)
def a_reload_of_libvirtd_moves_nothing() -> None:
    pids = libvirtd(), NFV.pid, WEB.pid
    run("systemctl", "reload", "libvirtd.service")
    same((libvirtd(), NFV.pid, WEB.pid), pids)
    NFV.must_be_on("2")
    WEB.must_be_on("1")


@check(1)
def status_and_doctor_find_nothing_wrong() -> None:
    emupin("status")
    emupin("apply", "--all")
    assert "emupin" in emupin("status", "--prometheus")
    all_is_well()
    the_trail_holds()


@check(1)
def what_drifts_is_found_and_put_right() -> None:
    virsh("emulatorpin", NFV.name, "2-3", "--live")
    NFV.must_be_on("2-3")
    emupin("status", NFV.name, status=1)
    emupin("apply", NFV.name, status=1)
    NFV.must_be_on("2-3")
    emupin("apply", NFV.name, "--yes")
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    emupin("status")


@check(1)
def a_managed_save_comes_back_through_the_filter() -> None:
    """The saved image has the pin that somebody set meanwhile; what libvirt starts from it has the policy's."""
    virsh("emulatorpin", NFV.name, "2-3", "--live")
    virsh("managedsave", NFV.name)
    NFV.start()
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    assert ("restore", "rewritten") in audit(NFV.name), audit(NFV.name)


@check(1)
def the_trail_is_rotated_and_goes_on() -> None:
    trail = Path("/var/log/emupin/audit.jsonl")
    run("logrotate", "--force", "/etc/logrotate.d/emupin")
    assert not trail.exists() or not trail.read_text()
    WEB.destroy()
    WEB.start()
    WEB.must_be_on("1")
    same(trail.stat().st_mode & 0o777, 0o600)
    assert trail.with_name("audit.jsonl.1").read_text().count("\n") > 3
    run("systemctl", "start", "logrotate.service")
    all_is_well()
    the_trail_holds()


@check(1)
def apparmor_denied_nothing() -> None:
    same([line for line in journal("_TRANSPORT=kernel") + journal("_TRANSPORT=audit") if "DENIED" in line], [])
