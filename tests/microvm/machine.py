"""A Linux of its own under QEMU: four CPUs on two NUMA nodes, cgroup v2 with every controller, Debian's kernel.

Its root file system is this machine's, read-only through virtiofs, with an overlay in its memory: what the micro VM
does to its files is gone with it. It needs no KVM. Its one command writes JSON lines to a second serial port.
"""

from __future__ import annotations

import gzip
import json
import shlex
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import suites

from . import packages

HERE = Path(__file__).resolve().parent
INSIDE = HERE / "inside.py"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
QEMU = "qemu-system-x86_64"
PROGRAMS = ("apt-get", "apt-cache", "dpkg-deb", QEMU, VIRTIOFSD, "unshare", "setpriv", "mount")

CPUS, MEMORY = 4, 2048
"""Memory in MiB: half of it on each node."""
MODULES = ("virtio_pci", "virtiofs", "overlay", "tun", "vhost_net")
SECONDS = 1800
"""When a micro VM that has not ended by itself is killed."""

INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /machine /layers /new
mount -t proc proc /proc
for module in /modules/*; do insmod "$module" || echo "init: $module cannot be loaded"; done
mount -t virtiofs -o ro machine /machine || echo "init: no virtiofs"
mount -t tmpfs -o size=1g layers /layers
mkdir /layers/upper /layers/work
mount -t overlay -o lowerdir=/machine,upperdir=/layers/upper,workdir=/layers/work overlay /new
mount -t devtmpfs dev /new/dev
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
umount /proc
exec switch_root /new /bin/sh -c {command}
"""
COMMAND = "/usr/bin/python3 -I {inside}; echo o >/proc/sysrq-trigger; sleep 60"
"""A shell stays process 1: it reaps every QEMU that loses its parent."""

SHARE = """
mount --rbind / "$1" && mount -o remount,bind,ro "$1" &&
    exec "$2" --socket-path="$3" -o source="$1" -o cache=always -o sandbox=chroot -o no_posix_lock --thread-pool-size=2
"""
"""In a mount namespace of its own, where the machine's root is read-only."""

Scene = dict[str, Any]


class MachineError(AssertionError):
    """The micro VM did not do what it was made for."""


@dataclass(frozen=True)
class Image:
    """What a micro VM boots."""

    kernel: Path
    initrd: bytes


def prepare(kernel: str, cache: Path) -> Image:
    """The image of a kernel that a metapackage names. `cache` keeps unpacked packages from one run to the next."""
    linux = packages.unpack(packages.dependency(kernel), cache)
    busybox = packages.unpack("busybox-static", cache)
    (image,) = linux.glob("boot/vmlinuz-*")
    return Image(image, _initrd(linux, busybox))


def run(image: Image, folder: Path) -> dict[str, Scene]:
    """Boot it, and return what `inside.py` saw, by scene. `folder` takes logs."""
    initrd, results = folder / "initrd", folder / "results.jsonl"
    initrd.write_bytes(image.initrd)
    with tempfile.TemporaryDirectory(prefix="emupin-vm-") as private, open(folder / "virtiofsd.log", "wb") as log:
        socket, top = Path(private, "socket"), Path(private, "root")
        top.mkdir()
        share = _begin("unshare", "--mount", "sh", "-c", SHARE, "sh", str(top), VIRTIOFSD, str(socket), log=log)
        try:
            _wait_for(socket, folder / "virtiofsd.log")
            _boot(_arguments(image.kernel, initrd, socket, results), folder / "console.log")
        finally:
            share.kill()
            share.wait(30)
    return _scenes(results, folder / "console.log")


def _wait_for(socket: Path, log: Path) -> None:
    for _ in range(100):
        if socket.exists():
            return
        time.sleep(0.1)
    raise MachineError(f"virtiofsd does not come up: {log.read_text(errors='replace')}")


def _begin(*argv: str, log: Any) -> subprocess.Popen[bytes]:
    """A process that dies with this one."""
    command = ("setpriv", "--pdeathsig", "KILL", *argv)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _boot(arguments: list[str], console: Path) -> None:
    with console.open("wb") as log:
        process = _begin(QEMU, *arguments, log=log)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise MachineError(f"not done after {SECONDS} s; the console ended with:\n{_end(console)}") from None
        finally:
            process.kill()
            process.wait(30)


def _arguments(kernel: Path, initrd: Path, socket: Path, results: Path) -> list[str]:
    half, cpus = MEMORY // 2, CPUS // 2
    nodes = []
    for node in (0, 1):
        nodes += ["-object", f"memory-backend-memfd,id=memory{node},size={half}M,share=on"]
        nodes += ["-numa", f"node,nodeid={node},memdev=memory{node},cpus={node * cpus}-{node * cpus + cpus - 1}"]
    return [
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", suites.TCG_CPU),
        *("-smp", f"{CPUS},sockets=2,cores={cpus},threads=1", "-m", f"{MEMORY}M", *nodes),
        *("-chardev", f"socket,id=root,path={socket}"),
        *("-device", "vhost-user-fs-pci,chardev=root,tag=machine,queue-size=512"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 loglevel=3 panic=-1 mitigations=off tsc=reliable nokaslr random.trust_cpu=on"),
        *("-serial", "stdio", "-serial", f"file:{results}"),
        *("-display", "none", "-monitor", "none", "-nodefaults", "-net", "none", "-no-reboot"),
    ]


def _scenes(results: Path, console: Path) -> dict[str, Scene]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    scenes = {scene.pop("scene"): scene for scene in map(json.loads, lines)}
    if "end" not in scenes:
        raise MachineError(f"ended after the scenes {', '.join(scenes) or 'none'}; the console:\n{_end(console)}")
    return scenes


def _end(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-60:])


# -- initrd -----------------------------------------------------------------------------------------------------------


def _initrd(linux: Path, busybox: Path) -> bytes:
    """A cpio archive (`newc`) with the program that mounts the root file system, and the modules it needs."""
    init = INIT.format(command=shlex.quote(COMMAND.format(inside=shlex.quote(str(INSIDE)))))
    found = packages.modules(linux, MODULES)
    entries = [
        *((name, stat.S_IFDIR | 0o755, b"", 0) for name in ("bin", "dev", "modules")),
        ("dev/console", stat.S_IFCHR | 0o600, b"", 0x501),
        ("init", stat.S_IFREG | 0o755, init.encode(), 0),
        ("bin/busybox", stat.S_IFREG | 0o755, (busybox / "bin" / "busybox").read_bytes(), 0),
        *((f"modules/{at:02}-{name}", stat.S_IFREG | 0o644, data, 0) for at, (name, data) in enumerate(found.items())),
        ("TRAILER!!!", 0, b"", 0),
    ]
    archive = b"".join(_entry(inode, *entry) for inode, entry in enumerate(entries, 1))
    return gzip.compress(archive, compresslevel=1)


def _entry(inode: int, name: str, mode: int, data: bytes, device: int) -> bytes:
    major, minor, path = device >> 8, device & 0xFF, name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
