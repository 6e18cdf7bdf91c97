"""This machine in a throw-away view of its own: real programs, real package databases, and nothing that stays."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from checkout import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """\
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --rbind /sys "$1/root/sys"
for folder in run tmp; do mount -t tmpfs tmpfs "$1/root/$folder"; done
mkdir "$1/root/tmp/given"
mount --bind "$2" "$1/root/tmp/given"
for ours in "$4" "$5"; do # They may be below /tmp.
    mkdir -p "$1/root$ours"
    mount --bind "$ours" "$1/root$ours"
done
for ours in etc/libvirt/hooks etc/emupin var/lib/emupin var/log/emupin usr/local/lib/emupin usr/local/share/emupin; do
    rm -rf "$1/root/$ours"
done
rm -f "$1/root/usr/local/bin/emupin" "$1/root/etc/logrotate.d/emupin"
mkdir -p "$1/root/etc/libvirt/hooks"
exec chroot "$1/root" sh -ec "$3" "$0" 2>&1
"""
"""A node without emupin; what is given is /tmp/given there, and checkout and environment are where they are here."""

DAEMON = """\
daemon() { # daemon NAME: a program of that name that libvirt's pid file leads to; SIGHUP and it is told
    cp /bin/sh /tmp/$1
    waits='trap "echo reloaded >>/tmp/reloads" HUP; touch /tmp/ready; while :; do sleep 0.1; done'
    /tmp/$1 -c "$waits" >/dev/null 2>&1 &
    echo $! >/run/$1.pid
    while [ ! -e /tmp/ready ]; do sleep 0.05; done
}
reloads() { # how often since it was asked last
    sleep 0.3
    if [ -e /tmp/reloads ]; then wc -l </tmp/reloads; rm /tmp/reloads; else echo 0; fi
}
"""
"""What pretends to be a libvirtd where only its reload matters."""


UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def need_root() -> None:
    if os.getuid():
        pytest.skip("only root can have a private view of the file system")


def run(folder: Path, given: Path, script: str, *, check: bool = True) -> str:
    """All that `script` prints, run in a view made below the empty `folder`; a step of it begins with `== NAME`."""
    need_root()
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", PRELUDE, "sh", folder, given, DAEMON + script, CHECKOUT, sys.prefix],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "LIBVIRT_VERSION": "9.0.0", "HOME": "/tmp"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def steps(output: str) -> dict[str, list[str]]:
    """The lines of each step by its name."""
    found: dict[str, list[str]] = {}
    for part in ("\n" + output).split("\n== ")[1:]:
        name, *lines = part.splitlines()
        found[name] = lines
    return found
