"""The second boot goes on: a guest with preallocated memory on two nodes moves between two libvirtds of this host."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from real import host as private
from real.host import PrivateHost

from host.inside.changes import NODES
from host.inside.first import POLICY
from host.inside.guests import ROM, emulatorpin, halting_rom
from host.inside.kit import SECONDS, check, same

PLACED = frozenset({1})
"""Its rule's: the CPU of vCPU 0."""
ADDRESSES = {"node-a": "10.77.0.1", "node-b": "10.77.0.2"}


def must_be_placed(host: PrivateHost) -> None:
    found = [frozenset(each.allowed) for each in host.threads(NODES.name) if each.kind == "emulator"]
    assert len(found) > 1, found
    same(set(found), {PLACED})


def pins(host: PrivateHost) -> list[str | None]:
    """Of the live and the persistent definition."""
    return [emulatorpin(host.virsh("dumpxml", *more, NODES.name).stdout) for more in ((), ("--inactive",))]


def migrate(source: PrivateHost, target: PrivateHost) -> None:
    wishes = ("--live", "--unsafe", "--persistent", "--undefinesource")
    where = (f"qemu+tcp://{target.name}/system", "--migrateuri", f"tcp://{ADDRESSES[target.name]}")
    source.virsh("migrate", *wishes, NODES.name, *where)


@check(2, only="12")
def memory_on_two_nodes_migrates_there_and_back() -> None:
    """libvirt 9.0 starts the QEMU that it migrates to with the XML's pin: without a CPU of each node that fails."""
    private.SECONDS = SECONDS
    # AppArmor's profile is made for the machine's own libvirtd.
    private.LIBVIRTD = private.LIBVIRTD.replace("exec ", "exec aa-exec -p unconfined -- ")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpuset +cpu +io +memory +pids")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source, target = (stack.enter_context(PrivateHost(Path(folder) / name, name, "v2")) for name in ADDRESSES)
        source.link(target)
        for each in (source, target):
            each.install(POLICY)
            each.path(str(ROM)).write_bytes(halting_rom())
        source.virsh("define", "/dev/stdin", input=NODES.xml)
        source.virsh("start", NODES.name)
        for here, there in ((source, target), (target, source)):
            must_be_placed(here)
            same(pins(here), ["1-2", "1-2"], "what is placed stays out of the definitions")
            migrate(here, there)
        must_be_placed(source)
        trail = [(entry["op"], entry["outcome"]) for entry in source.audit()]
        same([each for each in trail if each[1] in ("failed", "refused")], [])
        assert ("started", "enforced") in trail[-3:], trail
