"""The first boot ends: emupin goes, its first release comes, and is upgraded under running guests."""

from __future__ import annotations

from pathlib import Path

from host.inside.first import HOOK, NFV, POLICY, WEB, all_is_well, restart_libvirtd, the_trail_holds
from host.inside.kit import NEW, OLD, audit, check, emupin, emupin_json, eventually, run, same, virsh, write

LIBRARY = Path("/usr/local/lib/emupin/emupin")
COMMAND = Path("/usr/local/bin/emupin")


@check(1)
def guests_outlive_an_uninstallation_that_takes_their_pins_back() -> None:
    pids = NFV.pid, WEB.pid
    run(str(NEW / "install.sh"), "--uninstall", "--undo")
    NFV.must_be_on("2-3")
    same((NFV.pins, WEB.pins[1]), (("2-3", "2-3"), None))
    same([path for path in (HOOK, LIBRARY, COMMAND, Path("/etc/logrotate.d/emupin")) if path.exists()], [])
    same([path for path in HOOK.parent.rglob("*") if path.is_file()], [])
    restart_libvirtd()
    assert NFV.running
    assert WEB.running
    same((NFV.pid, WEB.pid), pids)
    WEB.destroy()
    WEB.start()


@check(1)
def the_first_release_works_here() -> None:
    """As it was installed on a host that has never seen another."""
    for place in ("/etc/emupin", "/run/emupin", "/var/lib/emupin", "/var/log/emupin"):
        run("rm", "-rf", place)
    run("sh", str(OLD / "install.sh"))
    write("/etc/emupin/policy.yaml", POLICY, 0o600)
    assert "0.1.0" in emupin("--version")
    for guest in (NFV, WEB):
        guest.destroy()
        guest.define()
        guest.start()
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    WEB.must_be_on("1")


@check(1)
def an_upgrade_under_running_guests_is_not_noticed_by_them() -> None:
    pids = NFV.pid, WEB.pid
    run(str(NEW / "install.sh"))
    same((NFV.pid, WEB.pid), pids)
    emupin("status")
    all_is_well()
    the_trail_holds()
    restart_libvirtd()
    eventually(lambda: audit(WEB.name)[-1][0] == audit(NFV.name)[-1][0] == "reconnect", "both reconnected")
    same((NFV.pid, WEB.pid), pids)
    NFV.must_be_on("2")
    WEB.must_be_on("1")
    same([each["cpu"] for each in emupin_json("host")["cpus"] if each["dedicated"]], [1], "what web-1 still holds")


@check(1)
def one_guest_runs_and_one_is_off_when_the_host_reboots() -> None:
    """Debian stops libvirtd while libvirt-guests saves: which of them is faster is not what this is about."""
    write("/etc/systemd/system/libvirt-guests.service.d/order.conf", "[Unit]\nAfter=libvirtd.service\n")
    run("systemctl", "daemon-reload")
    WEB.destroy()
    virsh("autostart", WEB.name)
    assert NFV.running
