"""The guests of a real host, and what the kernel and libvirt say of them; read without the code under test."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from real.threads import Status, Thread, cpus, threads

from host.inside.kit import becomes, eventually, same, virsh, write

ROM = Path("/var/lib/libvirt/halt.rom")
"""Firmware that stops its CPU for good at its first instruction: a guest that takes nothing from the others."""
RUN = Path("/run/libvirt/qemu")
STORED = Path("/etc/libvirt/qemu")
CGROUP = Path("/sys/fs/cgroup")


def halting_rom() -> bytes:
    """What ROM holds: cli; hlt; jmp back."""
    return bytes.fromhex("faf4ebfd").rjust(0xFFF4, b"\0").ljust(0x10000, b"\0")


@dataclass(frozen=True)
class Guest:
    name: str
    vcpus: tuple[str, ...]
    """The CPUs of each."""
    emulatorpin: str | None = None
    more: str = ""
    """Elements of the domain."""
    memory: int = 16
    """In MiB."""
    confined: bool = False
    """By AppArmor: making its profile takes most of a start's time here."""

    @property
    def xml(self) -> str:
        pins = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>" for vcpu, cpu in enumerate(self.vcpus))
        if self.emulatorpin is not None:
            pins += f"<emulatorpin cpuset='{self.emulatorpin}'/>"
        return f"""<domain type='qemu'>
  <name>{self.name}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, self.name)}</uuid>
  <memory unit='MiB'>{self.memory}</memory>
  <vcpu placement='static'>{len(self.vcpus)}</vcpu>
  <cputune>{pins}</cputune>
  {self.more}
  <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='rom'>{ROM}</loader></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <memballoon model='none'/>
  </devices>
  {"" if self.confined else "<seclabel type='none'/>"}
</domain>
"""

    # -- what it does -------------------------------------------------------------------------------------------------

    def define(self) -> None:
        write(ROM, "")
        ROM.write_bytes(halting_rom())
        virsh("define", "/dev/stdin", input=self.xml)

    def start(self) -> None:
        virsh("start", self.name)

    def destroy(self) -> None:
        virsh("destroy", self.name)

    @property
    def running(self) -> bool:
        return virsh("domstate", self.name).strip() == "running"

    def must_run(self) -> None:
        """Now, or when the host has come so far."""
        eventually(lambda: self.running, f"{self.name} runs")

    # -- what is seen of it -------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return Status.from_file(RUN / f"{self.name}.xml").pid

    @property
    def threads(self) -> list[Thread]:
        return threads(Path("/proc"), Status.from_file(RUN / f"{self.name}.xml"))

    @property
    def pins(self) -> tuple[str | None, str | None]:
        """`<emulatorpin>` of libvirt's live definition and of the persistent one."""
        live, stored = virsh("dumpxml", self.name), virsh("dumpxml", "--inactive", self.name)
        return emulatorpin(live), emulatorpin(stored)

    def must_be_on(self, wanted: str) -> None:
        """Every emulator thread, and its cgroup; the vCPUs where they belong."""
        found = {f"{each.kind} {each.tid} {each.name}": each.allowed for each in self.threads}
        emulator = {name: allowed for name, allowed in found.items() if name.startswith("emulator ")}
        assert len(emulator) > 1, found
        same(set(emulator.values()), {cpus(wanted)}, f"{self.name}: {emulator}")
        for vcpu, pin in enumerate(self.vcpus):
            same(
                {at for name, at in found.items() if name.startswith(f"vcpu{vcpu} ")},
                {cpus(pin)},
                f"{self.name}: {found}",
            )
        same((self.group / "cpuset.cpus.effective").read_text().strip(), wanted, f"{self.group}")

    @property
    def group(self) -> Path:
        """The cgroup of its emulator threads."""
        line = Path(f"/proc/{self.pid}/cgroup").read_text().strip()
        return Path(f"{CGROUP}{line.partition('::')[2]}")

    def must_be_recorded(self, wanted: str) -> None:
        """In both definitions, now or when the recording process is done."""
        becomes(lambda: self.pins, (wanted, wanted), f"{self.name} recorded on {wanted}")


def emulatorpin(xml: str) -> str | None:
    found = ET.fromstring(xml).find("./cputune/emulatorpin")
    return None if found is None else found.attrib["cpuset"]
