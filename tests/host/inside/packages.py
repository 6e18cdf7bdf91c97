"""The second boot ends: emupin comes as a package, then by the Ansible role, and goes. A guest runs all the while."""

from __future__ import annotations

import json
import re
from pathlib import Path

from host.inside.first import HOOK, NFV, POLICY, WEB, libvirtd, restart_libvirtd
from host.inside.kit import NEW, OLDER_PACKAGE, PACKAGE, audit, check, emupin, eventually, run, same, virsh, write

PLACED = HOOK.parent / "qemu.d/50-emupin"
STATE = [Path(place) for place in ("/etc/emupin", "/run/emupin", "/var/lib/emupin", "/var/log/emupin")]
POLICY_FILE = Path("/etc/emupin/policy.yaml")
PLAY = Path("/srv/play.yml")
TEXT = f"""\
- hosts: all
  gather_subset: ["!all", "!min", pkg_mgr, python]
  roles: [emupin]
  vars:
    emupin_source: file
    emupin_file: {PACKAGE}
    emupin_policy_file: /srv/policy.yaml
    ansible_python_interpreter: /usr/bin/python3
"""


def all_files() -> list[Path]:
    """What is there of emupin."""
    programs = [Path("/usr/bin/emupin"), Path("/usr/lib/emupin"), Path("/usr/share/emupin")]
    return [path for path in (HOOK, PLACED, *programs, *STATE) if path.exists()]


def play(*argv: str) -> dict[str, int]:
    """Run the role on this host; the figures that Ansible gives at the end."""
    roles = f"ANSIBLE_ROLES_PATH={NEW}/deploy/ansible/roles"
    words = ("ANSIBLE_NOCOLOR=1", "ANSIBLE_PIPELINING=1", roles, "ansible-playbook", "-i", "localhost,", "-c", "local")
    said = run("env", *words, str(PLAY), *argv)
    (recap,) = re.findall(r"^localhost +: (.+)$", said, re.M)
    figures = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", recap)}
    assert figures["failed"] == figures["unreachable"] == 0, said
    return figures


def must_find_no_problem() -> None:
    """Of the rule for wide guests there is a warning since CPUs are isolated."""
    found = json.loads(run("emupin", "doctor", "--json", status=None))["findings"]
    same([each["what"] for each in found if each["level"] == "problem"], [], "doctor")


@check(2)
def a_package_comes_to_a_host_with_a_running_guest() -> None:
    run(str(NEW / "install.sh"), "--uninstall", "--undo")
    run("rm", "-rf", *map(str, STATE))
    NFV.define()
    NFV.start()
    NFV.must_be_on("2-3")
    pid, daemon = NFV.pid, libvirtd()
    run("dpkg", "--install", str(OLDER_PACKAGE))
    write(POLICY_FILE, POLICY, 0o600)
    assert PLACED.exists()
    same((NFV.pid, libvirtd()), (pid, daemon))
    NFV.must_be_on("2-3")
    WEB.start()
    WEB.must_be_on("1")
    WEB.destroy()
    restart_libvirtd()
    eventually(lambda: ("reconnect", "enforced") in audit(NFV.name), "a reconnect of nfv-1")
    NFV.must_be_on("2")
    NFV.must_be_recorded("2")
    same(NFV.pid, pid)
    must_find_no_problem()


@check(2)
def the_package_is_upgraded_under_a_running_guest() -> None:
    older, pids = Path("/usr/lib/emupin/emupin/older.py"), (NFV.pid, libvirtd())
    assert older.exists()
    run("dpkg", "--install", str(PACKAGE))
    assert not older.exists()
    same((NFV.pid, libvirtd()), pids)
    same(POLICY_FILE.read_text(), POLICY)
    NFV.must_be_on("2")
    emupin("status")
    must_find_no_problem()
    WEB.start()
    WEB.must_be_on("1")
    WEB.destroy()


@check(2)
def the_package_is_removed_and_purged_under_a_running_guest() -> None:
    pid = NFV.pid
    said = run("dpkg", "--remove", "emupin")
    assert "pins that were recorded stay" in said
    assert not PLACED.exists()
    same(POLICY_FILE.read_text(), POLICY)
    run("dpkg", "--purge", "emupin")
    same(all_files(), [])
    restart_libvirtd()
    NFV.must_run()
    same(NFV.pid, pid)
    NFV.must_be_on("2")
    same(NFV.pins, ("2", "2"), "what was recorded stays")


@check(2)
def the_role_in_check_mode_changes_nothing_on_a_host_that_lacks_everything() -> None:
    write(PLAY, TEXT)
    write("/srv/policy.yaml", POLICY)
    assert play("--check")["changed"] > 0
    same(all_files(), [])


@check(2)
def the_role_applied_twice_changes_nothing_the_second_time() -> None:
    """It asks doctor itself; and what the guest has already it keeps."""
    pid = NFV.pid
    assert play()["changed"] > 0
    same(play()["changed"], 0)
    same(NFV.pid, pid)
    WEB.define()
    WEB.start()
    WEB.must_be_on("1")
    WEB.must_be_recorded("1")
    WEB.destroy()
    virsh("emulatorpin", NFV.name, "2-3", "--live")
    emupin("apply", NFV.name, "--yes")
    NFV.must_be_on("2")


@check(2)
def the_role_takes_emupin_away_with_what_it_recorded() -> None:
    pid = NFV.pid
    play("--extra-vars", "emupin_state=absent")
    assert not PLACED.exists()
    same(POLICY_FILE.read_text(), POLICY)
    same(NFV.pid, pid)
    same(WEB.pins[1], None)
