"""Guests for a private host: small, under TCG, with the pins that Nova gives to a guest with dedicated CPUs."""

from __future__ import annotations

import os
import socket
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

CPUS = tuple(sorted(os.sched_getaffinity(0)))
"""Of the machine, in order: the guests' vCPU N is pinned to the N-th of them."""

MIB = 1024 * 1024

READER = bytes.fromhex(
    "31c08ed88ed0bc007c"  # xorw %ax,%ax; movw %ax,%ds; movw %ax,%ss; movw $0x7c00,%sp
    "b280"  # movb $0x80,%dl: the first disk
    "fbf4"  # again: sti; hlt, until the timer ticks: a reader that leaves the machine to the others
    "be257cb442"  # movw $packet,%si; movb $0x42,%ah: extended read
    "52cd135a"  # pushw %dx; int $0x13; popw %dx
    "80f201"  # xorb $1,%dl: the other disk; if there is none, an error that does not matter
    "ff062d7c81262d7cff03"  # incw packet+8; andw $0x3ff,packet+8: the next sector
    "ebe6"  # jmp again
    "100001000000002000000000000000000000"  # packet: 16 bytes, 1 sector, to 2000:0000, from sector 0
)
"""A boot sector that reads the first two disks for ever, so that QEMU starts block workers."""
HALT, NO_HALT = bytes.fromhex("fbf4"), bytes.fromhex("fb90")


@dataclass(frozen=True)
class Guest:
    """A domain XML, by what the tests vary in it."""

    name: str
    vcpus: int = 2
    emulatorpin: str | None = ",".join(map(str, CPUS[:2]))
    """Nova's default: the union of all vCPUs' CPUs."""
    disks: tuple[str, ...] = ()
    """Images: the first is an IDE disk, the second a virtio disk in the iothread."""
    iothread: bool = False
    vnc: str = ""
    """Path of the socket."""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def xml(self) -> str:
        pins = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{CPUS[vcpu]}'/>" for vcpu in range(self.vcpus))
        if self.emulatorpin is not None:
            pins += f"<emulatorpin cpuset='{self.emulatorpin}'/>"
        if self.iothread:
            pins += f"<iothreadpin iothread='1' cpuset='{CPUS[1]}'/>"
        return f"""<domain type='qemu'>
  <name>{escape(self.name)}</name>
  <uuid>{self.uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>{self.vcpus}</vcpu>
  {"<iothreads>1</iothreads>" if self.iothread else ""}
  <cputune>{pins}</cputune>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(map(self._disk, range(len(self.disks))))}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {f"<graphics type='vnc'><listen type='socket' socket='{self.vnc}'/></graphics>" if self.vnc else ""}
  </devices>
</domain>
"""

    def _disk(self, index: int) -> str:
        iothread, target = (("", "dev='hda' bus='ide'"), ("iothread='1'", "dev='vda' bus='virtio'"))[index]
        boot = f"<boot order='{index + 1}'/>"  # SeaBIOS skips the disks that have none
        driver, source = f"<driver name='qemu' type='raw' {iothread}/>", quoteattr(self.disks[index])
        return f"<disk type='file'>{driver}<source file={source}/><target {target}/>{boot}</disk>"


def write_disk(path: Path, busy: bool = False) -> None:
    """An image of 8 MiB that boots the reader, and is full: a copy of it keeps several workers busy.

    A `busy` reader waits for no timer: it takes its CPU whole, on every machine.
    """
    reader = READER.replace(HALT, NO_HALT) if busy else READER
    path.write_bytes(reader.ljust(510, b"\0") + b"\x55\xaa" + os.urandom(8 * MIB - 512))


def draw(path: Path, times: int = 5) -> int:
    """Look at a guest's screen through VNC, so that QEMU starts a `vnc_worker`; the bytes that came."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        take(client, 12)
        client.sendall(b"RFB 003.008\n")
        take(client, take(client, 1)[0])
        client.sendall(b"\x01")  # no authentication
        take(client, 4)
        client.sendall(b"\x01")  # shared
        width, height, name = struct.unpack(">HH16xI", take(client, 24))
        take(client, name)
        client.sendall(struct.pack(">BxHi", 2, 1, 0))  # raw
        for _ in range(times):
            client.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        return len(take(client, times * 4))


def take(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise ConnectionError("QEMU closed the VNC connection")
        data += more
    return data
