"""A whole throw-away host on one machine: libvirtd, its files, devices, network and cgroups in their own namespaces.

Everything that happens inside stays inside, `install.sh` included, and it is gone when the process that made it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from . import cgroups
from .threads import Status, Thread, threads

CHECKOUT = Path(__file__).resolve().parents[2]
INNER = Path(__file__).with_name("inner.py")
STORE = "/run/.private"
PYTHON = "/usr/bin/python3"
HOOKS = "/etc/libvirt/hooks"
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"'
LIBVIRTD = """
cd /sys/fs/cgroup || exit
for group in */cgroup.procs init/cgroup.procs; do [ ! -e "$group" ] || echo $$ >"$group"; done
exec /usr/sbin/libvirtd --daemon --listen --pid-file /run/libvirtd.pid
"""
"""A process that enters a cgroup namespace still has its old cgroup, and libvirt would put the guests beside that."""

SECONDS = 60.0
"""What a command or a condition may take; whoever runs this on a slow machine sets more."""

Result = TypeVar("Result")


class CommandFailedError(AssertionError):
    """A command inside a host ended with a status other than 0."""


def eventually(predicate: Callable[[], Result], timeout: float | None = None) -> Result:
    """The first true value of `predicate`; its last value when the time is over, which only a failure takes."""
    end = time.monotonic() + (SECONDS if timeout is None else timeout)
    while True:
        value = predicate()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.03)


class PrivateHost:
    """A libvirtd with its own /etc, /run, /var, /usr/local, /dev, process ids, network and cgroups.

    `cgroup` is what libvirt finds: `v1`, `v2` or `none`. `folder` takes the logs that a failure needs. With
    `shares_pids` the process ids are the machine's, which the kernel's trace events have.
    """

    def __init__(self, folder: Path, name: str, cgroup: str = "v1", shares_pids: bool = False) -> None:
        self.folder, self.name, self.cgroup, self.shares_pids = folder, name, cgroup, shares_pids
        self.groups: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.init = 0

    def __enter__(self) -> PrivateHost:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: TracebackType | type[BaseException] | BaseException | None) -> None:
        self.down()

    # -- up and down --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.groups = cgroups.make(self.name, self.cgroup)
        identity = str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))
        namespaces = [each for each in NAMESPACES if each != "--pid" or not self.shares_pids]
        unshare = ("unshare", *namespaces, "--propagation=private", "--fork", "--kill-child=SIGKILL")
        inner = (PYTHON, "-I", str(INNER), self.name, identity, self.cgroup)
        with open(self.folder / "init.log", "wb") as log:
            self.process = subprocess.Popen(
                ("sh", "-c", JOIN, "sh", *map(str, self.groups), "--", *unshare, "--", *inner),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        if not eventually(self._ready):
            raise CommandFailedError(f"{self.name} does not come up: {(self.folder / 'init.log').read_text()}")
        self.start_libvirtd()

    def _ready(self) -> bool:
        assert self.process
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):  # unshare has ended: the log says why
            self.init = int((Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or ["0"])[0])
            if self.init and self.cgroup == "v2":  # A cgroup that hands controllers on must hold no process.
                for group in self.groups:
                    (group.parent / "cgroup.procs").write_text(str(pid))
        return bool(self.init) and self.path(f"{STORE}/ready").exists()

    def down(self) -> None:
        """Everything inside is killed, and its cgroups are removed."""
        if self.process:
            self._save_logs()
            if self.init and not self.shares_pids:  # Else the end of its input makes it kill what is in the host.
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(self.init, signal.SIGKILL)
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait(30)
            self.process, self.init = None, 0
        for group in self.groups:
            cgroups.remove(group)
        self.groups.clear()

    def _save_logs(self) -> None:
        for log in ("/var/log/libvirt/libvirtd.log", f"{STORE}/syslog", "/var/log/emupin/audit.jsonl"):
            with contextlib.suppress(OSError):  # not written yet, or the host is dead already
                shutil.copy(self.path(log), self.folder)

    # -- commands and files -------------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """A file of the host as the machine sees it."""
        return Path(f"/proc/{self.init}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def begin(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A command inside, started and not waited for."""
        # Who enters a cgroup namespace keeps his cgroup, and may not leave it where systemd has mounted the hierarchy.
        groups = [str(group / "init") for group in self.groups if self.cgroup == "v2"]
        joining = ("sh", "-c", JOIN, "sh", *groups, "--")
        entering = ("nsenter", "-t", str(self.init), "-m", "-p", "-n", "-u", "-i", "-C", "--")
        return subprocess.Popen(
            (*joining, *entering, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8", **(env or {})},
        )

    def run(
        self, *argv: str, check: bool = True, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, with its output. Raises CommandFailedError where `check` and its status is not 0."""
        process = self.begin(*argv, env=env)
        try:
            out, err = process.communicate(input or "", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if check and process.returncode:
            raise CommandFailedError(f"{self.name}: {' '.join(argv)}: status {process.returncode}: {err}{out}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def virsh(self, *argv: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("virsh", "-q", *argv, check=check, input=input)

    # -- libvirtd -----------------------------------------------------------------------------------------------------

    def start_libvirtd(self) -> None:
        if self.shares_pids:  # It must be a descendant of `inner`, which will have to end it.
            assert self.process
            assert self.process.stdin
            self.process.stdin.write(LIBVIRTD.encode())
            self.process.stdin.flush()
        else:
            self.run("sh", "-c", LIBVIRTD)
        if not eventually(lambda: self.virsh("list", check=False).returncode == 0):
            raise CommandFailedError(f"{self.name}: libvirtd does not answer")

    def stop_libvirtd(self) -> None:
        pid = self.path("/run/libvirtd.pid").read_text().strip()
        self.run("kill", pid)
        eventually(lambda: not self.path(f"/proc/{pid}/exe").exists())

    def restart_libvirtd(self) -> None:
        """And wait until every running guest's `reconnect` hook has ended, if there is a hook."""
        guests = len(self.virsh("list", "--uuid").stdout.split()) if any(self.path(HOOKS).rglob("*")) else 0
        before = self.logged("op=reconnect")
        self.stop_libvirtd()
        self.start_libvirtd()
        hook = ("pgrep", "--full", f"{HOOKS}/.* reconnect begin")
        called = eventually(lambda: self.logged("op=reconnect") >= before + guests)
        time.sleep(1 if guests else 0)  # libvirtd logs the call before it starts the hook.
        if not called or not eventually(lambda: not self.run(*hook, check=False).stdout):
            raise CommandFailedError(f"{self.name}: libvirtd does not come back to its guests")

    def reload(self) -> None:
        """SIGHUP, and wait until libvirtd has looked for hooks again."""
        next_driver = "/hooks/lxc"
        before = self.logged(next_driver)
        self.run("kill", "-HUP", self.path("/run/libvirtd.pid").read_text().strip())
        if not eventually(lambda: self.logged(next_driver) > before):
            raise CommandFailedError(f"{self.name}: libvirtd does not look for hooks again")

    def logged(self, text: str) -> int:
        """How often libvirtd's own log says `text`."""
        return self.path("/var/log/libvirt/libvirtd.log").read_text(errors="replace").count(text)

    def link(self, other: PrivateHost) -> None:
        """A cable between two hosts: this one is 10.77.0.1, the other 10.77.0.2, and each knows the other by name."""
        ends = ((self, "10.77.0.1"), (other, "10.77.0.2"))
        subprocess.run(
            f"ip link add em0 netns {self.init} type veth peer name em0 netns {other.init}".split(), check=True
        )
        names = "".join(f"{address} {host.name}\n" for host, address in ends)
        for host, address in ends:
            host.run("ip", "address", "add", f"{address}/24", "dev", "em0")
            host.run("ip", "link", "set", "em0", "up")
            host.write("/etc/hosts", f"127.0.0.1 localhost\n{names}")

    # -- emupin -------------------------------------------------------------------------------------------------------

    def install(self, policy: str) -> None:
        """Install the checkout as an administrator would, with `policy`."""
        self.run("sh", str(CHECKOUT / "install.sh"))
        self.set_policy(policy)
        self.reload()

    def set_policy(self, policy: str) -> None:
        self.write("/etc/emupin/policy.yaml", policy, 0o600)

    def syslog(self) -> list[str]:
        """Lines as they came: `<PRIORITY>TIME TAG: TEXT`; 27 is an error and 29 a notice of a daemon."""
        return self.path(f"{STORE}/syslog").read_text(encoding="utf-8", errors="replace").splitlines()

    def audit(self) -> list[dict[str, Any]]:
        """The audit trail: every line of it must be a JSON object, with its newline."""
        trail = self.path("/var/log/emupin/audit.jsonl")
        text = trail.read_text(encoding="utf-8") if trail.exists() else ""
        assert text.endswith("\n") or not text, "the last line of the audit trail is torn"
        return [json.loads(line) for line in text.splitlines()]

    # -- guests -------------------------------------------------------------------------------------------------------

    def status(self, guest: str) -> Status:
        return Status.from_file(self.path(f"/run/libvirt/qemu/{guest}.xml"))

    def pid(self, guest: str) -> int:
        """QEMU's, as the host numbers its processes."""
        return self.status(guest).pid

    def vcpu_tids(self, guest: str) -> dict[int, int]:
        return self.status(guest).vcpu_tids

    def threads(self, guest: str) -> list[Thread]:
        return threads(self.path("/proc"), self.status(guest))
