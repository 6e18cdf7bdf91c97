"""Hosts with many pretended running guests, for what reads all of them: files in the shape of real ones, no kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hosts import Host, domain_xml

MOUNTS = "31 23 0:27 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset\n"
PADDING = "".join(
    f"{word}:\t0000000000000000\n" for word in ("SigPnd", "SigBlk", "SigIgn", "CapInh", "CapEff", "CapBnd")
)

STATUS = """\
Name:\t{name}
Umask:\t0022
State:\tS (sleeping)
Tgid:\t{pid}
Pid:\t{tid}
PPid:\t1
Uid:\t64055\t64055\t64055\t64055
{padding}Cpus_allowed:\tffff
Cpus_allowed_list:\t{allowed}
Mems_allowed_list:\t0
voluntary_ctxt_switches:\t{voluntary}
nonvoluntary_ctxt_switches:\t{involuntary}
"""
SCHED = """\
{name} ({tid}, #threads: 9)
-------------------------------------------------------------------
se.exec_start                                :       4596302.752486
se.vruntime                                  :           178.134093
se.sum_exec_runtime                          :             0.135031
se.nr_migrations                             :          {migrations:11}
nr_switches                                  :                    1
policy                                       :                    0
"""


@dataclass
class Task:
    """A thread: its name, its cgroup below the machine's, its CPUs, and what is counted for it."""

    name: str
    group: str
    allowed: str
    cpu: int = 2
    voluntary: int = 100
    involuntary: int = 10
    migrations: int = 17
    run: int = 1_500_000_000
    wait: int = 250_000_000


@dataclass
class Machine:
    """One running guest in the files of a host with cgroup v1."""

    host: Host
    name: str = "nfv-1"
    uuid: str = "5a3f1d2c-7f0e-4c50-9a1b-0123456789ab"
    pid: int = 4242
    pin: str | None = "2"
    group: str = "2"
    stored: str | None = "2"
    """The persistent definition's pin."""
    first: int = 2
    """The CPU of vCPU 0; the other three have the next ones."""
    tasks: dict[int, Task] = field(default_factory=dict)
    """By thread id less the process's."""

    def __post_init__(self) -> None:
        if not self.tasks:
            self.tasks = {
                0: Task("qemu-system-x86", "emulator", self.group),
                1: Task("qemu-system-x86", "emulator", self.group),
                2: Task("vnc_worker", "emulator", self.group),
                3: Task("IO iothread1", "iothread1", "7"),
                **{
                    4 + vcpu: Task(f"CPU {vcpu}/KVM", f"vcpu{vcpu}", str(self.first + vcpu), self.first + vcpu)
                    for vcpu in range(4)
                },
            }
        self.write()

    @property
    def folder(self) -> str:
        return f"/machine/qemu-{self.pid}-{self.name}.libvirt-qemu"

    def write(self) -> None:
        """Write every file anew."""
        write, pid = self.host.write, self.pid
        write("proc/self/mountinfo", "23 1 254:0 / / rw - ext4 /dev/vda rw\n" + MOUNTS)
        write(f"proc/{pid}/cmdline", "\0".join(["qemu-system-x86_64", "-uuid", self.uuid, ""]))
        write(f"proc/{pid}/cgroup", f"9:memory:/\n4:cpuset:{self.folder}/emulator\n")
        (self.host.root / f"proc/{pid}/fd").mkdir(exist_ok=True)
        for group in {task.group for task in self.tasks.values()} | {"emulator"}:
            cpus = self.group if group == "emulator" else "7"
            write(f"sys/fs/cgroup/cpuset{self.folder}/{group}/cpuset.cpus", cpus + "\n")
        for offset, task in self.tasks.items():
            self._write_task(pid + offset, task)
        self._write_definitions()

    def _write_task(self, tid: int, task: Task) -> None:
        folder = f"proc/{self.pid}/task/{tid}"
        values = {**vars(task), "tid": tid, "pid": self.pid, "padding": PADDING}
        for each in (folder, *([f"proc/{tid}"] if tid == self.pid else [])):
            self.host.write(f"{each}/status", STATUS.format(**values))
        self.host.write(f"{folder}/cgroup", f"9:memory:/\n4:cpuset:{self.folder}/{task.group}\n")
        fields = ["S", *map(str, range(4, 39)), str(task.cpu), *["0"] * 13]
        self.host.write(f"{folder}/stat", f"{tid} ({task.name}) {' '.join(fields)}\n")
        self.host.write(f"{folder}/schedstat", f"{task.run} {task.wait} 77\n")
        self.host.write(f"{folder}/sched", SCHED.format(**values))

    def _write_definitions(self) -> None:
        vcpus = [offset for offset, task in self.tasks.items() if task.group.startswith("vcpu")]
        tids = "".join(f"    <vcpu id='{at}' pid='{self.pid + offset}'/>\n" for at, offset in enumerate(vcpus))
        head = f"<domstatus state='running' reason='booted' pid='{self.pid}'>\n  <vcpus>\n{tids}  </vcpus>\n"
        xml = head + self._domain(self.pin) + "</domstatus>\n"
        self.host.write(f"run/libvirt/qemu/{self.name}.xml", xml)
        self.host.write(f"etc/libvirt/qemu/{self.name}.xml", self._domain(self.stored))

    def _domain(self, pin: str | None) -> str:
        xml = domain_xml(self.name, pin, self.uuid)
        for vcpu in range(4):
            xml = xml.replace(f"vcpu='{vcpu}' cpuset='{2 + vcpu}'", f"vcpu='{vcpu}' cpuset='{self.first + vcpu}'")
        return xml


def many(folder: Path, count: int) -> Host:
    """A host with so many guests of four CPUs each, all in line."""
    host = Host(folder)
    host.set_policy()
    host.write("sys/devices/system/cpu/online", f"0-{4 * count - 1}\n")
    for number in range(count):
        uuid = f"5a3f1d2c-7f0e-4c50-9a1b-{number:012}"
        pin = str(4 * number)
        Machine(host, f"nfv-{number:03}", uuid, 10_000 + 100 * number, pin, pin, pin, 4 * number)
    return host
