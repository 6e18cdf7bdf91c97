"""Whole hosts for tests: a root folder with the kernel's and libvirt's files in the shape that real ones have.

The layouts are those seen under libvirt 9.0 with QEMU 7.2 (Debian 12) on cgroup v1, cgroup v2 and without cgroups;
what only pretends to be a kernel here is named so in the tests that use it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from emupin.base import cpuset

PROJECT = Path(__file__).resolve().parent.parent
HOOK = PROJECT / "hooks" / "qemu"
UUID = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"

POLICY = """\
version: 1
rules:
  - name: nfv
    match: {name: "nfv-*"}
    placement: ["vcpu:0"]
"""


DEDICATED = """\
version: 1
host: {pool: "8-11"}
rules:
  - name: nfv
    match: {name: "nfv-*"}
    placement: [dedicated]
"""


def domain_xml(name: str = "nfv-1", emulatorpin: str | None = "2-5", uuid: str = UUID, extra: str = "") -> str:
    """A guest of four vCPUs pinned to the CPUs 2 to 5, as Nova and libvirt write one."""
    pin = f"    <emulatorpin cpuset='{emulatorpin}'/>\n" if emulatorpin else ""
    return (
        "<domain type='kvm' id='7'>\n"
        f"  <name>{name}</name>\n"
        f"  <uuid>{uuid}</uuid>\n"
        "  <memory unit='KiB'>1048576</memory>\n"
        "  <vcpu placement='static'>4</vcpu>\n"
        "  <cputune>\n"
        "    <vcpupin vcpu='0' cpuset='2'/>\n"
        "    <vcpupin vcpu='1' cpuset='3'/>\n"
        "    <vcpupin vcpu='2' cpuset='4'/>\n"
        "    <vcpupin vcpu='3' cpuset='5'/>\n"
        f"{pin}"
        "  </cputune>\n"
        "  <os>\n"
        "    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n"
        "  </os>\n"
        f"{extra}"
        "  <devices>\n"
        "    <graphics type='vnc' port='-1' passwd='hunter2'/>\n"
        "  </devices>\n"
        "</domain>\n"
    )


@dataclass
class Answer:
    """What one call of the hook gave."""

    status: int
    output: str
    error: str


@dataclass
class Host:
    """A root folder, and the hook called in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    hook: Path = HOOK

    def __post_init__(self) -> None:
        self.write("sys/devices/system/cpu/online", "0-15\n")

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def set_policy(self, text: str = POLICY) -> None:
        self.write("etc/emupin/policy.yaml", text, 0o600)

    def call(self, operation: str, xml: str | bytes, name: str = "nfv-1", **environment: str) -> Answer:
        """Call the hook as libvirt does: a clean environment, the XML on stdin."""
        clean = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "EMUPIN_ROOT": str(self.root)}
        data = xml.encode() if isinstance(xml, str) else xml
        done = subprocess.run(
            [self.hook, name, operation, "begin", "-"],
            input=data,
            capture_output=True,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **self.environment, **environment},
            timeout=60,
            check=False,
        )
        return Answer(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode())

    def audit(self) -> list[dict[str, object]]:
        """The entries of the trail, each of which has all that its kind must carry."""
        import json

        from emupin.trail.form import lacking

        path = self.root / "var/log/emupin/audit.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        assert [lacking(entry) for entry in entries] == [""] * len(entries)
        return entries


@dataclass
class FakeThread:
    """A thread of a pretended process: its name, the mask it asked for, and its cgroup below the machine's."""

    name: str
    wants: set[int]
    group: str


@dataclass
class FakeGuest:
    """A pretended running QEMU, in the files of a kernel >= 6.2: a thread's CPUs are its mask within its cpuset.

    `layout` is v1, v2 or none (no cpuset controller).
    """

    host: Host
    layout: str
    threads: dict[int, FakeThread]
    machine: str
    pid: int = 4242
    name: str = "nfv-1"
    cpusets: dict[str, set[int]] = field(default_factory=dict)
    fails: dict[int, OSError] = field(default_factory=dict)
    """Errors that setting the affinity of a thread ends in."""

    def __post_init__(self) -> None:
        self.sync()
        proc = self.host.root / "proc" / str(self.pid)
        self.host.write(f"proc/{self.pid}/cmdline", "\0".join(["qemu-system-x86_64", "-uuid", UUID, ""]))
        (proc / "fd").mkdir(exist_ok=True)
        mounts = {
            "v1": "31 23 0:27 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset\n",
            "v2": "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
            "none": "31 23 0:27 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu\n",
        }
        self.host.write("proc/self/mountinfo", "23 1 254:0 / / rw - ext4 /dev/vda rw\n" + mounts[self.layout])
        tids = [tid for tid, thread in self.threads.items() if thread.group.startswith("vcpu")]
        vcpus = "".join(f"    <vcpu id='{at}' pid='{tid}'/>\n" for at, tid in enumerate(tids))
        self.host.write(
            f"run/libvirt/qemu/{self.name}.xml",
            f"<domstatus state='running' reason='booted' pid='{self.pid}'>\n  <vcpus>\n{vcpus}  </vcpus>\n"
            + domain_xml(self.name)
            + "</domstatus>\n",
        )

    def group_folder(self, group: str) -> Path:
        base = "sys/fs/cgroup/cpuset" if self.layout == "v1" else "sys/fs/cgroup"
        return self.host.root / (base + self.machine) / group

    def sync(self) -> None:
        """Write what the pretended kernel shows: its cgroups' files and every thread's status."""
        for group, cpus in self.cpusets.items():
            folder = self.group_folder(group)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpuset.cpus").write_text(cpuset.format(cpus) + "\n")
            effective = folder / "cpuset.cpus.effective"
            if self.layout == "v2" and not effective.exists():
                effective.symlink_to("cpuset.cpus")  # In effect as soon as it is written.
        for tid, thread in self.threads.items():
            limit = self.cpusets.get(thread.group)
            allowed = (thread.wants & limit or limit) if limit else thread.wants
            lines = {"v1": "4:cpuset:", "v2": "0::", "none": "4:cpu:"}[self.layout]
            path = f"{self.machine}/{thread.group}" if thread.group else "/"
            for base in (f"proc/{self.pid}/task/{tid}", *([f"proc/{tid}"] if tid == self.pid else [])):
                listed = cpuset.format(allowed)
                text = f"Name:\t{thread.name}\nPid:\t{tid}\nCpus_allowed_list:\t{listed}\nMems_allowed_list:\t0\n"
                self.host.write(f"{base}/status", text)
                other = "" if self.layout == "v2" else "9:memory:/\n"
                self.host.write(f"{base}/cgroup", f"{other}{lines}{path}\n")

    def kill(self, tid: int) -> None:
        del self.threads[tid]
        shutil.rmtree(self.host.root / f"proc/{self.pid}/task/{tid}")

    def set_affinity(self, tid: int, cpus: frozenset[int]) -> None:
        """What the pretended kernel does for sched_setaffinity(2)."""
        if tid in self.fails:
            raise self.fails[tid]
        if tid not in self.threads:
            raise ProcessLookupError(3, "No such process")
        thread = self.threads[tid]
        self.read_groups()
        limit = self.cpusets.get(thread.group)
        if limit and not cpus & limit:
            raise OSError(22, "Invalid argument")
        thread.wants = set(cpus)
        self.sync()

    def read_groups(self) -> None:
        """Take over what was written to the cgroups' files."""
        for group in self.cpusets:
            text = (self.group_folder(group) / "cpuset.cpus").read_text()
            self.cpusets[group] = set(cpuset.parse_kernel(text))
        self.sync()

    def allowed(self, tid: int) -> str:
        text = (self.host.root / f"proc/{self.pid}/task/{tid}/status").read_text()
        return text.split("Cpus_allowed_list:\t")[1].split("\n")[0]


def python() -> str:
    """The interpreter that the hook uses."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
