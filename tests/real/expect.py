"""What the tests against a real libvirtd look at, and the policies they give it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Protocol

from .guests import CPUS, Guest
from .host import PrivateHost, eventually
from .threads import Thread

Cpus = frozenset[int]

FIRST = frozenset(CPUS[:1])
"""Where `vcpu:0` puts the emulator threads of every guest here."""
UNION = frozenset(CPUS[:2])
"""Where Nova's default has them."""


def policy(placement: str = "vcpu:0", on_failure: str = "start", name: str = "nfv-*", checks: str = "{}") -> str:
    return f"""\
version: 1
defaults: {{on_failure: {on_failure}, persist: true}}
rules:
  - name: nfv
    match: {{name: "{name}"}}
    placement: ["{placement}"]
    checks: {checks}
"""


class Definable(Protocol):
    """A guest that the tests know a domain XML of."""

    @property
    def xml(self) -> str: ...

    @property
    def uuid(self) -> str: ...


def define(host: PrivateHost, guest: Definable) -> None:
    host.virsh("define", "/dev/stdin", input=guest.xml)


def start(host: PrivateHost, guest: Definable) -> None:
    """Define it and start it."""
    define(host, guest)
    host.virsh("start", guest.uuid)


def emulator_cpus(host: PrivateHost, guest: Guest) -> set[Cpus]:
    """The different sets of CPUs that emulator threads have: one, where all is well."""
    return {thread.allowed for thread in host.threads(guest.name) if thread.kind == "emulator"}


def of_kind(threads: list[Thread], kind: str) -> list[Thread]:
    return [thread for thread in threads if thread.kind.startswith(kind)]


def masks(host: PrivateHost, guest: Guest) -> dict[int, tuple[str, Cpus]]:
    """Of the threads that are none of the hook's business: kind and CPUs by thread id."""
    threads = host.threads(guest.name)
    return {thread.tid: (thread.kind, thread.allowed) for thread in threads if thread.kind != "emulator"}


def emulatorpin(xml: str) -> str | None:
    pin = ET.fromstring(xml.encode()).find("./cputune/emulatorpin")
    return None if pin is None else pin.attrib["cpuset"]


def live_pin(host: PrivateHost, guest: Guest) -> str | None:
    return emulatorpin(host.virsh("dumpxml", guest.uuid).stdout)


def inactive_pin(host: PrivateHost, guest: Guest) -> str | None:
    return emulatorpin(host.virsh("dumpxml", "--inactive", guest.uuid).stdout)


def pin_on_disk(host: PrivateHost, guest: Guest) -> str | None:
    return emulatorpin(host.path(f"/etc/libvirt/qemu/{guest.name}.xml").read_text(encoding="utf-8"))


def recorded(host: PrivateHost, guest: Guest, cpu: int = CPUS[0]) -> bool:
    """libvirt's live, inactive and stored definition have the pin, or get it shortly."""
    views = (live_pin, inactive_pin, pin_on_disk)
    return eventually(lambda: [view(host, guest) for view in views] == [str(cpu)] * 3)


def outcomes(host: PrivateHost, guest: Guest) -> list[tuple[str, str]]:
    """Operation and outcome of each audit entry of the guest, in order."""
    return [(entry["op"], entry["outcome"]) for entry in host.audit() if entry.get("uuid") == guest.uuid]


def tainted(host: PrivateHost, guest: Guest) -> bool:
    """libvirt took a domain XML from a hook."""
    return "hook-script" in host.status(guest.name).taints


def complaints(host: PrivateHost) -> list[str]:
    """What syslog has as errors."""
    return [line for line in host.syslog() if line.startswith("<27>")]


def running(host: PrivateHost, guest: Guest) -> bool:
    return host.virsh("domstate", guest.uuid).stdout.strip() == "running"
