"""The second boot, with the command line of an NFV node: what ran comes back, and CPUs 2 and 3 are isolated."""

from __future__ import annotations

import json
import time
from pathlib import Path

from host.inside.first import HOOK, NFV, WEB, complaints, the_trail_holds
from host.inside.guests import Guest
from host.inside.kit import audit, check, emupin, emupin_json, read, run, same

WIDE = Guest("wide-1", ("2",))


@check(2)
def the_command_line_isolates_cpus() -> None:
    same(read("/sys/devices/system/cpu/isolated"), "2-3")
    same(read("/sys/devices/system/cpu/nohz_full"), "2-3")
    same(run("systemctl", "is-system-running", "--wait").strip(), "running")


@check(2)
def an_autostarted_guest_is_placed() -> None:
    WEB.must_run()
    WEB.must_be_on("1")
    WEB.must_be_recorded("1")


@check(2)
def a_guest_that_ran_at_shutdown_comes_back_and_is_placed() -> None:
    """libvirt-guests saved it, and restores it through the filter."""
    NFV.must_run()
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    assert "restore" in [op for op, _ in audit(NFV.name)]


@check(2)
def the_isolated_cpus_are_seen() -> None:
    host = emupin_json("host")
    same([each["cpu"] for each in host["cpus"] if each["isolated"]], [2, 3])


@check(2)
def status_finds_nothing_wrong_after_a_boot_and_doctor_what_is_new() -> None:
    """Its rule puts the wide guest on several CPUs that are isolated now."""
    emupin("status")
    wide = "rule wide, cpus:2-3: CPUs 2-3 are isolated: the kernel does not balance load there"
    same(complaints(), [wide], "doctor")
    the_trail_holds()


@check(2)
def several_isolated_cpus_are_warned_of() -> None:
    """Nothing is balanced there: every thread stays where it was put."""
    for guest in (NFV, WEB):
        guest.destroy()
    WIDE.define()
    WIDE.start()
    WIDE.must_be_on("2-3")
    entries = [json.loads(line) for line in Path("/var/log/emupin/audit.jsonl").read_text().splitlines()]
    warnings = [warning for entry in entries if entry.get("name") == WIDE.name for warning in entry["warnings"]]
    assert any("isolated" in warning for warning in warnings), warnings
    WIDE.destroy()


@check(2)
def bash_costs_no_time_where_the_kernel_has_no_room_for_a_process() -> None:
    """It would try again for fifteen seconds, and libvirt wait for it."""
    limit = Path("/proc/sys/kernel/threads-max")
    before, entries = limit.read_text(), audit(NFV.name)
    script = f"""
        read -r _ _ _ tasks _ </proc/loadavg
        echo $((${{tasks#*/}} - 30)) >{limit}
        exec bash {HOOK} {NFV.name} reconnect begin - </dev/null
    """
    began = time.monotonic()
    try:
        run("bash", "-c", script)
        spent = time.monotonic() - began
        same(int(limit.read_text()) < int(before), True)
    finally:
        limit.write_text(before)
    assert spent < 11, spent
    same(audit(NFV.name), entries)
