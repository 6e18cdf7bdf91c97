"""Pristine Debian roots: made by debootstrap, kept outside the checkout, entered in namespaces of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache", "emupin-tests")
PROGRAMS = ("debootstrap", "apt-get", "unshare", "pivot_root", "mount")
SECONDS = 1800
"""What a command inside may take: packages come over a network."""

ENTER = """
set -e
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs run "$root/run"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir -p "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
for node in null zero full random urandom tty net/tun; do
    [ -e "/dev/$node" ] || continue
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${stream#*:}" "$root/dev/${stream%:*}"; done
pivot_root "$root" "$root/mnt"
cd /
umount -l /mnt
exec "$@"
"""
"""A root of its own, as on a machine, and not a `chroot`: nobody who enters its namespace comes out anywhere else."""
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child=SIGKILL")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "dumb",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
APT = 'Acquire::Check-Valid-Until "false";\n'
"""A mirror may be frozen, and a machine's clock may be wrong."""
NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""As `policy-rc.d`: what is installed in a root starts nothing."""


class DebianError(AssertionError):
    """A root cannot be made, or a command in it failed."""


def output(*argv: str, env: dict[str, str] | None = None) -> str:
    """What a command prints on stdout. Raises DebianError where its status is not 0."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=env,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise DebianError(f"{argv[0]}: status {done.returncode}:\n{end}")
    return done.stdout


def entering(root: Path) -> tuple[str, ...]:
    """What runs a command in the root: with its own mounts and process ids, and this machine's network."""
    return ("unshare", *NAMESPACES, "sh", "-c", ENTER, "sh", str(root))


def inside(root: Path, *argv: str) -> str:
    return output(*entering(root), *argv, env=ENVIRONMENT)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Two runs on one machine do not make the same thing at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mirrors() -> tuple[str, str]:
    """Where this machine's apt has Debian from, and its security updates. Raises DebianError where it has neither."""
    lines = output("apt-get", "indextargets", "--format", "$(LABEL)|$(SITE)", "Created-By: Packages").splitlines()
    sites = dict(line.split("|", 1) for line in reversed(lines))
    try:
        return sites["Debian"], sites["Debian-Security"]
    except KeyError as label:
        raise DebianError(f"apt has no lists of {label}: run apt-get update, on a Debian") from None


def pristine(suite: str) -> Path:
    """The folder of a minimal root, which nobody changes; made on the first call."""
    root = CACHE / f"root-{suite}"
    with alone(root.name):
        if not root.exists():
            new = root.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            mirror, security = mirrors()
            output("debootstrap", "--variant=minbase", suite, str(new), mirror)
            (new / "etc/apt/sources.list").write_text(_sources(suite, mirror, security))
            (new / "etc/apt/apt.conf.d/99tests").write_text(APT)
            shutil.copy("/etc/resolv.conf", new / "etc/resolv.conf")
            new.rename(root)
    return root


def _sources(suite: str, mirror: str, security: str) -> str:
    more = [] if suite in ("sid", "unstable") else [f"{mirror} {suite}-updates", f"{security} {suite}-security"]
    return "".join(f"deb {source} main\n" for source in (f"{mirror} {suite}", *more))


def copy(root: Path, new: Path) -> None:
    output("cp", "--archive", "--reflink=auto", str(root), str(new))


def install(root: Path, packages: str) -> None:
    """Packages without what they recommend, and without starting their services."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text(NO_SERVICES)
    policy.chmod(0o755)
    inside(root, "apt-get", "--quiet", "update")
    inside(root, "apt-get", "--quiet", "--yes", "--no-install-recommends", "install", *packages.split())
    inside(root, "apt-get", "clean")
    policy.unlink()
