"""The second boot, with the command line of an NFV node: what ran comes back, and CPUs 2 and 3 are isolated."""

from __future__ import annotations

import json
from pathlib import Path

from host.inside.first import NFV, WEB, all_is_well
from host.inside.guests import Guest
from host.inside.kit import audit, check, emupin, emupin_json, read, run, same
from host.inside.upgrade import AUTO

WIDE = Guest("wide-1", ("2", "3"))


@check(2)
def the_command_line_isolates_cpus() -> None:
    same(read("/sys/devices/system/cpu/isolated"), "2-3")
    same(read("/sys/devices/system/cpu/nohz_full"), "2-3")
    same(run("systemctl", "is-system-running", "--wait").strip(), "running")


@check(2)
def an_autostarted_guest_is_placed() -> None:
    AUTO.must_run()
    AUTO.must_be_on("3")
    AUTO.must_be_recorded("3")


@check(2)
def guests_that_ran_at_shutdown_come_back_and_are_placed() -> None:
    """libvirt-guests saved them, and restores them through the filter."""
    for guest, cpu in ((NFV, "2"), (WEB, "1")):
        guest.must_run()
        guest.must_be_on(cpu)
        guest.must_be_recorded(cpu)
        assert "restore" in [op for op, _ in audit(guest.name)]


@check(2)
def the_isolated_cpus_are_seen() -> None:
    host = emupin_json("host")
    same([each["cpu"] for each in host["cpus"] if each["isolated"]], [2, 3])


@check(2)
def several_isolated_cpus_are_warned_of() -> None:
    """Nothing is balanced there: every thread stays where it was put."""
    NFV.destroy()
    WIDE.define()
    WIDE.start()
    WIDE.must_be_on("2-3")
    last = [json.loads(line) for line in Path("/var/log/emupin/audit.jsonl").read_text().splitlines()][-1]
    assert any("isolated" in warning for warning in last["warnings"]), last
    WIDE.destroy()


@check(2)
def status_and_doctor_find_nothing_wrong_after_a_boot() -> None:
    emupin("status")
    all_is_well()
