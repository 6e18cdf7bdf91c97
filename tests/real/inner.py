#!/usr/bin/python3
"""The first process of a private host: gives the namespaces files of their own, keeps the system log, reaps orphans.

Started by `host.PrivateHost` as `inner.py HOSTNAME UUID v1|v2|none`, as root, in fresh namespaces of every kind but
`user`. It ends, and with it everything in the host, when its standard input does: nothing outlives the tests. Where
the host shares the machine's process ids it is not PID 1, and does by hand what the kernel does for that one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

STORE = "/run/.private"
"""Where the layers of the overlays are, the log, and the marker that the host is ready."""

OVERLAID = ("/etc", "/usr", "/var/cache", "/var/lib", "/var/log")
"""The machine's files, with the host's own changes on top of them."""

EMPTY = (
    *(f"{place}/{ours}" for place in ("/etc", "/var/lib", "/var/log") for ours in ("libvirt", "emupin")),
    "/var/cache/libvirt",
)
"""A host starts without guests, hooks or policies, whatever the machine has."""

PR_SET_CHILD_SUBREAPER = 36

NODES = ("null", "zero", "full", "random", "urandom", "tty", "kvm", "net/tun")

LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_filters = "1:util.hook 1:qemu.qemu_process"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = [ ]
"""


def mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True)


def make_files() -> None:
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "run", "/run")
    for place in OVERLAID:
        layers = STORE + place
        os.makedirs(f"{layers}/upper")
        os.makedirs(f"{layers}/work")
        mount("-t", "overlay", "-o", f"lowerdir={place},upperdir={layers}/upper,workdir={layers}/work", "own", place)
    for place in EMPTY:
        shutil.rmtree(place, ignore_errors=True)
    for place in ("/etc/libvirt/hooks", "/var/lib/libvirt", "/var/log/libvirt"):
        os.makedirs(place)


def make_devices() -> None:
    """A `/dev` of the host's own, with the few nodes that libvirt and QEMU open."""
    if os.path.ismount("/dev/hugepages"):  # libvirt does not start with a mount that it cannot see.
        subprocess.run(("umount", "/dev/hugepages"), check=True)
    new = f"{STORE}/dev"
    os.makedirs(new)
    mount("-t", "tmpfs", "-o", "mode=755", "dev", new)
    for folder in ("net", "pts", "shm"):
        os.mkdir(f"{new}/{folder}")
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", f"{new}/pts")
    mount("-t", "tmpfs", "shm", f"{new}/shm")
    for node in NODES:
        if os.path.exists(f"/dev/{node}"):
            open(f"{new}/{node}", "x").close()
            mount("--bind", f"/dev/{node}", f"{new}/{node}")
    os.symlink("pts/ptmx", f"{new}/ptmx")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{new}/{name}")
    os.symlink("/proc/self/fd", f"{new}/fd")
    mount("--move", new, "/dev")


def make_cgroups(kind: str) -> None:
    """What libvirt finds is only the host's own sub-tree, or nothing. The memory hierarchy stays the machine's."""
    with open("/proc/mounts", encoding="utf-8") as file:
        hierarchies = [line.split()[1:4] for line in file if line.split()[2] == "cgroup"]
    with open("/proc/cgroups", encoding="utf-8") as file:
        known = {line.split()[0] for line in file} - {"memory"}
    subprocess.run(("umount", "-R", "/sys/fs/cgroup"), check=True)
    if kind == "v1":
        mount("-t", "tmpfs", "-o", "mode=755", "cgroup", "/sys/fs/cgroup")
        for place, _, options in hierarchies:
            controllers = sorted(known.intersection(options.split(",")))
            if controllers:
                os.mkdir(place)
                mount("-t", "cgroup", "-o", ",".join(controllers), "cgroup", place)
    elif kind == "v2":
        mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        delegate("/sys/fs/cgroup")


def delegate(top: str) -> None:
    """Turn every controller on; a cgroup that hands controllers on must hold no process."""
    os.mkdir(f"{top}/init")
    with open(f"{top}/init/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    while read(f"{top}/cgroup.procs"):  # `unshare`, which has forked: PrivateHost takes it out
        time.sleep(0.02)
    write(f"{top}/cgroup.subtree_control", " ".join(f"+{each}" for each in read(f"{top}/cgroup.controllers").split()))


def make_configuration(name: str, uuid: str) -> None:
    socket.sethostname(name)
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    write("/etc/hosts", f"127.0.0.1 localhost {name}\n")
    write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF.format(uuid=uuid))
    write("/etc/libvirt/qemu.conf", QEMU_CONF)
    write("/etc/libvirt/libvirt.conf", "")
    with open("/etc/passwd", encoding="utf-8") as file:
        users = file.read()
    if "\nlibvirt-qemu:" not in users:  # libvirtd asks for its default user even where qemu.conf names another
        write("/etc/passwd", users + "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n")
        write("/etc/group", "libvirt-qemu:x:64055:\n", "a")


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str, mode: str = "w") -> None:
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)


def keep_log() -> None:
    """Append what arrives at /dev/log to a file, a line each."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    with open(f"{STORE}/syslog", "ab", buffering=0) as file:
        write(f"{STORE}/ready", "")
        while True:
            file.write(log.recv(65536).rstrip(b"\0\n").replace(b"\n", b"\\n") + b"\n")


def end_with_input() -> None:
    """What comes meanwhile is a script to run."""
    while script := os.read(0, 4096):
        os.posix_spawnp("sh", ["sh", "-c", script.decode()], os.environ)
    while os.getpid() != 1 and (pids := children()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # `reap` was faster
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    os._exit(0)


def children() -> list[int]:
    """Processes of the host whose parent has ended are this one's, too."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def adopt_orphans() -> None:
    if os.getpid() != 1 and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap() -> None:
    """A QEMU that nobody waits for would stay a running guest to libvirt."""
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:  # no child at all is left
            pass


def main() -> None:
    name, uuid, cgroups = sys.argv[1:]
    adopt_orphans()
    make_files()
    make_devices()
    make_cgroups(cgroups)
    make_configuration(name, uuid)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    threading.Thread(target=keep_log, daemon=True).start()
    threading.Thread(target=end_with_input, daemon=True).start()
    reap()


if __name__ == "__main__":
    main()
