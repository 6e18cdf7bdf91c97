"""A guest that polls and tells what it missed, and a load for its emulator threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from .guests import CPUS, draw
from .host import PrivateHost

POLLER = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007c660f01164c7d0f20c00c010f22c0bb08008ee324fe0f22c0c6060080ea66c7060180e37c"
    "0000fbe874000f316689c6b90400e86900e2fb0f316629f066c1e80c66a3f08f66bb0003e0fe646766c70300450c00e8"
    "4800646766c70308460c00e83c00b91200e83600e2fb0f316692e83a006689d0e83400be00908b0e527dbd0300b020e8"
    "40006631c0668704e81c0083c6044d75ece2e7b00ae82a00ebc48a266c04fbf43a266c0474f8c351b908006689c366c1"
    "c30488d8240f3c0a1c692fe80400e2ee59c35250bafd03eca82074fb58baf803ee5ac3fa31c08ed8bb0c00f00fc11e54"
    "7df0ff06527d668b0ef08f0f316689c66689d70f316689c56629f06689ee6689d56619fa6689ef74046683c8ff663b87"
    "0090760566898700906639c872d566ff8704906601870890ebc966900000000000000000ffff00000092cf000f003c7d"
)
"""`poll.S`, assembled."""
SECTOR = POLLER.ljust(510, b"\0") + b"\x55\xaa"
REPORT_SECONDS = 18 * 65536 * 12 / 14_318_180
"""18 ticks of the BIOS's clock."""
DISK, SERIAL, VNC = "/var/lib/libvirt/poller.img", "/var/log/libvirt/poller.serial", "/run/poller-vnc"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Poller:
    """A domain XML of a guest whose vCPUs from 1 up poll; each vCPU has its own pin."""

    name: str = "nfv-poller"
    pins: tuple[int, ...] = CPUS[:2]
    emulatorpin: str = ",".join(map(str, CPUS[:2]))
    """The orchestrator's union of all vCPUs' CPUs."""
    kind: str = "qemu"
    """Or `kvm`."""
    uuid: str = field(default_factory=lambda: str(uuid4()))

    @property
    def xml(self) -> str:
        pins = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>" for vcpu, cpu in enumerate(self.pins))
        return f"""<domain type='{self.kind}'>
  <name>{self.name}</name>
  <uuid>{self.uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>{len(self.pins)}</vcpu>
  <cputune>{pins}<emulatorpin cpuset='{self.emulatorpin}'/></cputune>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/><apic/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file'><driver name='qemu' type='raw'/><source file='{DISK}'/><target dev='hda' bus='ide'/></disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{SERIAL}'/><target port='0'/></serial>
    <graphics type='vnc'><listen type='socket' socket='{VNC}'/></graphics>
    <memballoon model='none'/>
  </devices>
</domain>
"""


@dataclass(frozen=True)
class Gaps:
    """What one processor of the guest missed in one period, in cycles of its time-stamp counter."""

    longest: int
    count: int
    """Of 54 µs and more."""
    total: int
    """Of those; it wraps where they come to more than 32 bits."""


@dataclass(frozen=True)
class Report:
    """About a second of the guest."""

    at: int
    """Its time-stamp counter."""
    gaps: dict[int, Gaps]
    """By vCPU, from 1 up; which processor counts in which place is a matter of who woke first."""


def reports(text: str) -> list[Report]:
    """All whole lines that the guest has printed."""
    return [_report(line) for line in text.split("\n")[:-1]]


def _report(line: str) -> Report:
    at, *numbers = (int(word, 16) for word in line.split())
    threes = zip(numbers[::3], numbers[1::3], numbers[2::3])
    return Report(at, {place: Gaps(*three) for place, three in enumerate(threes, 1)})


def hertz(found: list[Report]) -> float:
    """Of the guest's time-stamp counter; QEMU's clock makes up for late ticks, so a long time tells it well."""
    return (found[-1].at - found[0].at) / ((len(found) - 1) * REPORT_SECONDS)


def write_disk(host: PrivateHost) -> None:
    host.path(DISK).write_bytes(SECTOR + bytes(8 * MIB - len(SECTOR)))


def serial(host: PrivateHost) -> list[Report]:
    return reports(host.path(SERIAL).read_text(encoding="ascii"))


@contextlib.contextmanager
def busy_emulator(host: PrivateHost, guest: Poller, viewers: int = 1) -> Iterator[None]:
    """Somebody looks at the guest's screen, its disk is copied, and the monitor is asked, again and again."""
    stop = threading.Event()
    copy = "/var/lib/libvirt/copy.img"

    def look() -> None:
        draw(host.path(VNC), 10)

    def copy_disk() -> None:
        host.virsh("blockcopy", guest.uuid, "hda", copy, "--transient-job", "--wait", "--finish", check=False)
        host.run("rm", "-f", copy)

    def ask() -> None:
        host.virsh("domstats", guest.uuid, check=False)

    def again(action: Callable[[], None], seconds: float) -> None:
        while not stop.wait(seconds):
            with contextlib.suppress(OSError):  # QEMU is busy, or the guest ends
                action()

    pairs = (*((look, 0.02),) * viewers, (copy_disk, 0.5), (ask, 0.5))
    threads = [threading.Thread(target=again, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
