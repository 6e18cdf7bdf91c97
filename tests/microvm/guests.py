"""The guests of the micro VM, and the policy that places them."""

from __future__ import annotations

from dataclasses import dataclass

UNION = "0-1"
"""Where Nova's default has the emulator threads of the first guest."""

NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

POLICY = """\
version: 1
host: {pool: "0-1,3"}
rules:
  - name: nfv
    match: {name: "nfv-*"}
    placement: ["vcpu:0"]
  - name: wide
    match: {name: "wide-*"}
    placement: ["cpus:2-3"]
  - name: dedicated
    match: {name: "dedicated-*"}
    placement: [dedicated]
  - name: hotplug
    match: {name: "hotplug-*"}
    placement: ["cpus:3", "cpus:2"]
    checks: {numa: off}
  - name: numa
    match: {name: "numa-*"}
    placement: ["cpus:3", "cpus:1"]
    checks: {numa: error}
"""
APART = POLICY.replace('["vcpu:0"]', '["vcpu:0"]\n    vhost: ["cpus:3"]\n    checks: {numa: off}')
"""The same, with the vhost workers of the first guest on a CPU of their own."""


@dataclass(frozen=True)
class Guest:
    """A domain XML as small as it goes: what runs here runs at a hundredth of a CPU's speed."""

    name: str
    vcpus: tuple[int, ...]
    """The CPU of each."""
    emulatorpin: str = UNION
    extra: str = ""
    more: str = ""
    memory: str = ""
    """Elements that say where its memory comes from."""

    @property
    def xml(self) -> str:
        pins = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>" for vcpu, cpu in enumerate(self.vcpus))
        pins += f"<emulatorpin cpuset='{self.emulatorpin}'/>"
        iothreads = "<iothreads>1</iothreads>" if "iothreadpin" in self.extra else ""
        return (
            f"<domain type='qemu' xmlns:qemu='{NAMESPACE}'><name>{self.name}</name><memory unit='MiB'>32</memory>"
            f"<vcpu>{len(self.vcpus)}</vcpu>{iothreads}<cputune>{pins}{self.extra}</cputune>{self.memory}"
            "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>"
            f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
            f"<controller type='usb' model='none'/><memballoon model='none'/></devices>{self.more}</domain>"
        )


NETDEV = "tap,id=vhost{0},ifname=tap{0},script=no,downscript=no,vhost=on,vhostforce=on"
DEVICE = "virtio-net-pci,netdev=vhost{0},romfile=,addr=0x{0}"
VHOST = "".join(
    f"<qemu:arg value='{argument}'/>" for argument in ("-netdev", NETDEV.format(7), "-device", DEVICE.format(7))
)
"""By QEMU's own options: libvirt gives vhost-net to no guest that has to do without KVM."""
CARD = f"netdev_add {NETDEV.format(8)}", f"device_add {DEVICE.format(8)}"
"""What plugs another such card into the running guest, in QEMU's monitor."""

NFV = Guest(
    "nfv-1",
    (0, 1),
    extra="<iothreadpin iothread='1' cpuset='1'/>",
    more=f"<qemu:commandline>{VHOST}</qemu:commandline>",
)
WIDE = Guest("wide-1", (3,), emulatorpin="1-2")
HOTPLUG = Guest("hotplug-1", (0,), emulatorpin="0")
"""Its emulator threads leave a CPU that goes offline, and come back with it."""
DEDICATED = Guest("dedicated-1", (2,), emulatorpin="2")
NUMA = Guest("numa-1", (0,), emulatorpin="0")
PREALLOCATED = Guest(
    "nfv-2",
    (0, 2),
    emulatorpin="0,2",
    memory=(
        "<memoryBacking><allocation mode='immediate'/></memoryBacking><numatune><memory mode='strict' nodeset='0-1'/>"
        "<memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/></numatune>"
        "<cpu><numa><cell id='0' cpus='0' memory='16' unit='MiB'/><cell id='1' cpus='1' memory='16' unit='MiB'/></numa>"
        "</cpu>"
    ),
)
"""As Nova has a guest with memory on both nodes: vcpu:0 leaves the emulator no CPU on the second one."""
