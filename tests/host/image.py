"""The disk of a real host: Debian with systemd, machined, AppArmor and libvirt as the distribution starts them."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import debian

SUITES = {"12": "bookworm", "13": "trixie"}
PACKAGES = """
    linux-image-cloud-amd64 initramfs-tools systemd-sysv systemd-container libpam-systemd dbus udev kmod zstd
    apparmor apparmor-utils libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu qemu-system-x86
    python3 python3-libvirt python3-lxml python3-yaml logrotate procps iproute2 ansible-core
"""
PROGRAMS = (*debian.PROGRAMS, "mke2fs")
SIZE = "6G"
"""Of a file that is mostly holes."""

UNIT = """\
[Unit]
Description=Checks of emupin, from the second disk
After=multi-user.target

[Service]
Type=exec
ExecStartPre=/bin/mkdir -p /srv/payload
ExecStartPre=/bin/tar -x -C /srv/payload -f /dev/vdb
ExecStart=/usr/bin/python3 -I /srv/payload/new/tests/host/inside/driver.py
StandardOutput=journal+console
TimeoutStartSec=infinity
Environment=HOME=/root LC_ALL=C.UTF-8
"""
TIMER = "[Timer]\nOnBootSec=1\n"
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"),
    *("man-db.timer", "dpkg-db-backup.timer", "getty@tty1.service", "serial-getty@ttyS0.service"),
)
"""What would take the CPUs now and then."""

FILES = {
    "etc/systemd/system/checks.service": UNIT,
    "etc/systemd/system/checks.timer": TIMER,
    "etc/fstab": "/dev/vda / ext4 rw,noatime 0 0\n",
    "etc/hosts": "127.0.0.1 localhost host\n",
    "etc/hostname": "host\n",
    "etc/default/libvirt-guests": "ON_SHUTDOWN=suspend\nON_BOOT=start\n",
}


@dataclass(frozen=True)
class Image:
    """What a host boots."""

    disk: Path
    kernel: Path
    initrd: Path


def image(release: str) -> Image:
    """The image of a Debian release: kept from an earlier run, or made now, which takes minutes."""
    recipe = hashlib.sha256(repr((PACKAGES, SIZE, FILES, MASKED)).encode()).hexdigest()[:12]
    folder = debian.CACHE / f"host-{release}-{recipe}"
    root = debian.pristine(SUITES[release])
    with debian.alone(f"host-{release}"):
        if not folder.exists():
            for old in debian.CACHE.glob(f"host-{release}-*"):
                shutil.rmtree(old)
            new = folder.with_suffix(".new")
            new.mkdir()
            _make(root, new)
            new.rename(folder)
    return Image(folder / "disk", folder / "vmlinuz", folder / "initrd")


def _make(pristine: Path, folder: Path) -> None:
    root = folder / "root"
    debian.copy(pristine, root)
    debian.install(root, PACKAGES)
    _configure(root)
    debian.output("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(folder / "disk"), SIZE)
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (found,) = (root / "boot").glob(pattern)
        shutil.copy(found, folder / name)
    shutil.rmtree(root)


def _configure(root: Path) -> None:
    for name, text in FILES.items():
        (root / name).write_text(text)
    units = root / "etc/systemd/system"
    (units / "timers.target.wants").mkdir(exist_ok=True)
    (units / "timers.target.wants/checks.timer").symlink_to("../checks.timer")
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (root / "var/log/journal").mkdir(exist_ok=True)
