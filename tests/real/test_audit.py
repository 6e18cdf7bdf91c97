"""The audit trail of a real host: whole, and every decision in it decided again the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .expect import define, policy, recorded, start
from .guests import Guest

if TYPE_CHECKING:
    from .host import PrivateHost


def test_the_trail_of_a_guests_life_is_whole_and_replays(host: PrivateHost) -> None:
    guest, refused = Guest("nfv-1"), Guest("bad-1")
    host.install(policy())
    start(host, guest)
    assert recorded(host, guest)
    host.virsh("managedsave", guest.uuid)
    host.set_policy(policy(placement="cpus:0", checks="{foreign_overlap: 'off'}"))
    host.virsh("start", guest.uuid)
    host.restart_libvirtd()
    host.set_policy(policy(placement="vcpu:7", on_failure="refuse", name="*"))
    define(host, refused)
    assert host.run("virsh", "-q", "start", refused.uuid, check=False).returncode != 0
    operations = {str(entry["op"]) for entry in host.audit()}
    assert {"prepare", "started", "record", "restore", "reconnect"} <= operations
    verified = host.run("/usr/local/bin/emupin", "audit", "verify", check=False)
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
    replayed = host.run("/usr/local/bin/emupin", "audit", "replay", check=False)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_a_secret_of_the_guest_is_told_to_nobody(host: PrivateHost) -> None:
    guest = Guest("nfv-1", vnc="/run/vnc")
    host.install(policy(checks="{numa: error}"))
    xml = guest.xml.replace("type='vnc'", "type='vnc' passwd='hunter2'")
    assert "hunter2" in xml
    host.virsh("define", "/dev/stdin", input=xml)
    host.virsh("start", guest.uuid)
    assert recorded(host, guest)
    host.virsh("managedsave", guest.uuid)
    host.set_policy(policy(placement="vcpu:7"))
    host.virsh("start", guest.uuid)
    assert "hunter2" in host.virsh("dumpxml", "--security-info", guest.uuid).stdout, "the guest has it still"
    told = [*host.syslog(), host.path("/var/log/emupin/audit.jsonl").read_text()]
    told += [path.read_bytes().decode("latin-1") for path in host.path("/run/emupin").iterdir() if path.is_file()]
    assert not [text for text in told if "hunter2" in text]
