"""`emupin doctor`: each fault, made on purpose in a host's file tree, is found with its cure; a healthy host has none.

The trees are pretended but for what `install.sh` has put there; tests/real/test_doctor.py breaks a real host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import pytest
from command import emupin, environment
from hosts import PROJECT, UUID, FakeGuest, FakeThread, Host, domain_xml

from emupin.doctor.checkup import examine
from emupin.doctor.diagnosis import OK, PROBLEM, UNKNOWN, WARNING, Diagnosis
from emupin.doctor.hook import MARKER
from emupin.doctor.libvirtd import TICK
from emupin.doctor.machine import Answer, Machine
from emupin.doctor.report import render
from emupin.node import store
from emupin.node.claims import Ledger

PID = 1000
HOOK, IN_FOLDER = "etc/libvirt/hooks/qemu", "etc/libvirt/hooks/qemu.d/50-emupin"
LIBRARY = "usr/local/lib/emupin/emupin"
POLICY = """\
version: 1
host: {reserved: "0-1", pool: "2-3"}
rules:
  - name: nfv
    match: {name: "nfv-*"}
    placement: ["dedicated", "vcpu:0"]
"""
ENTRY = '{{"time": "{}.000000Z", "op": "{}"}}\n'
MACHINE_GROUP = "/machine/qemu-1-nfv-1.libvirt-qemu"
MOUNTS = "31 23 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"

HEALTHY = {
    "libvirtd --version": Answer(0, "libvirtd (libvirt) 9.0.0"),
    "virtqemud --version": None,
    "/usr/bin/python3 -I -S": Answer(0, "3 11 " + (sys.implementation.cache_tag or "")),
    "/usr/bin/python3 -I -c import yaml": Answer(0, ""),
    "/usr/bin/python3 -I -c import libvirt": Answer(0, ""),
    "timedatectl": Answer(0, "yes"),
    "systemctl": None,
    "matchpathcon": Answer(0, "verified"),
    "sesearch": Answer(0, "allow virtqemud_t virt_hook_t:file { execute };"),
}
"""What the commands of a healthy host answer, by how they begin."""


def as_root() -> pytest.MarkDecorator:
    return pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


@dataclass
class Lab:
    """A healthy host, to be broken."""

    root: Path
    answers: dict[str, Answer | None] = field(default_factory=lambda: dict(HEALTHY))
    labelled: str | None = "system_u:object_r:virt_hook_t:s0"
    disk: Callable[[str], os.statvfs_result] = os.statvfs
    now: float = field(default_factory=time.time)

    def path(self, path: str) -> Path:
        return self.root / path

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def run_daemon(self, name: str = "libvirtd", pid: int = PID, age: float = -5) -> None:
        """A daemon that was started `age` seconds ago; the default is after everything here was made."""
        started = float(Path("/proc/uptime").read_text().split()[0]) - age
        fields = " ".join(["S", *["0"] * 18, str(int(started * TICK)), "0"])
        self.write(f"proc/{pid}/comm", f"{name}\n")
        self.write(f"proc/{pid}/status", f"Name:\t{name}\nUid:\t0\t0\t0\t0\n")
        self.write(f"proc/{pid}/stat", f"{pid} (a ) b) {fields}\n")

    def set_policy(self, text: str = POLICY, mode: int = 0o600) -> None:
        self.write("etc/emupin/policy.yaml", text, mode)

    def audit(self, text: str, mode: int = 0o600) -> None:
        self.write("var/log/emupin/audit.jsonl", text, mode)

    def entry(self, operation: str, age: float = 0) -> str:
        return ENTRY.format(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.now - age)), operation)

    def ask(self, command: Sequence[str]) -> Answer | None:
        line = " ".join(command)
        return next(answer for start, answer in self.answers.items() if line.startswith(start))

    def examine(self) -> list[Diagnosis]:
        return examine(Machine(str(self.root), self.now, self.ask, lambda _: self.labelled, self.disk))

    def faults(self) -> list[Diagnosis]:
        return [finding for finding in self.examine() if finding.level in (PROBLEM, WARNING)]

    def guest(self, layout: str = "v1", wants: str = "2", stranger: str = "") -> FakeGuest:
        """A running guest: a main thread, one that `wants` other CPUs, and perhaps a `stranger` in a vCPU's cgroup."""
        threads = {
            4242: FakeThread("qemu-kvm", {2, 3}, "emulator"),
            4243: FakeThread("vnc_worker", {int(cpu) for cpu in wants.split(",")}, "emulator"),
            4244: FakeThread("CPU 0/KVM", {2}, "vcpu0"),
        }
        groups = {"emulator": {2, 3}, "vcpu0": {2}} if layout != "none" else {}
        guest = FakeGuest(Host(self.root), layout, threads, MACHINE_GROUP, cpusets=groups)
        if stranger:
            threads[4245] = FakeThread(stranger, {2}, "vcpu0")
            guest.sync()
        return guest


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("installed")
    environment = {**os.environ, "DESTDIR": str(root), "LIBVIRT_VERSION": "9.0.0"}
    subprocess.run([PROJECT / "install.sh"], env=environment, check=True, capture_output=True, timeout=60)
    compiler = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "timestamp"]
    subprocess.run([*compiler, str(root / "usr/local/lib/emupin")], check=True)  # As on a node: a staging has none.
    return root


@pytest.fixture
def lab(installed: Path, tmp_path: Path) -> Lab:
    lab = Lab(Path(shutil.copytree(installed, tmp_path / "host", symlinks=True)))
    lab.write("usr/bin/python3", "", 0o755)
    lab.write("sys/devices/system/cpu/online", "0-15\n")
    lab.write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
    lab.write("proc/sys/kernel/random/boot_id", "boot\n")
    lab.write("proc/self/mountinfo", MOUNTS)
    lab.write("proc/uptime", Path("/proc/uptime").read_text())
    lab.path("run").mkdir()
    lab.run_daemon()
    lab.set_policy()
    return lab


# -- a healthy host ----------------------------------------------------------------------------------------------------


def test_healthy_host_gives_one_line(lab: Lab) -> None:
    findings = lab.examine()
    assert (
        render(findings, verbose=False, colour=False) == f"all is well ({len(findings)} checks, 0 could not be made)\n"
    )
    assert {finding.level for finding in findings} == {OK}


def test_healthy_host_stays_so_with_a_guest_and_a_trail(lab: Lab) -> None:
    lab.guest(wants="2,3", stranger="kvm-nx-lpage-re")
    with Ledger(str(lab.root), None) as ledger:
        ledger.claim(UUID, frozenset({2}), dedicated=False)
        ledger.save()
    lab.audit(lab.entry("prepare"))
    assert lab.faults() == []


@pytest.mark.parametrize("enforcing", ["0", "1"])
def test_healthy_host_stays_so_under_selinux(lab: Lab, enforcing: str) -> None:
    lab.write("sys/fs/selinux/enforce", enforcing)
    lab.write("sys/fs/selinux/booleans/virt_hooks_unconfined", "1 1")
    lab.run_daemon("virtqemud")
    assert {finding.level for finding in lab.examine()} == {OK}


def test_healthy_host_stays_so_under_apparmor(lab: Lab) -> None:
    lab.write("sys/module/apparmor/parameters/enabled", "Y\n")
    lab.write(f"proc/{PID}/attr/current", "libvirtd (enforce)\n")
    assert {finding.level for finding in lab.examine()} == {OK}


def test_silent_commands_are_unknown_and_no_fault(lab: Lab) -> None:
    lab.answers = dict.fromkeys(HEALTHY)
    levels = {finding.level for finding in lab.examine()}
    assert levels == {OK, UNKNOWN}


# -- each fault --------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, str, Callable[[Lab], object]]] = {}
"""By name: the level and a part of the text that must be found, and what breaks the host."""

Break = Callable[[Lab], object]


def fault(level: str, text: str) -> Callable[[Break], Break]:
    def add(function: Break) -> Break:
        FAULTS[function.__name__] = level, text, function
        return function

    return add


def foreign(lab: Lab, path: str) -> None:
    lab.write(path, "#!/bin/sh\nexit 0\n", 0o755)


def move(lab: Lab, path: str = IN_FOLDER) -> None:
    lab.path(path).parent.mkdir(exist_ok=True)
    lab.path(HOOK).rename(lab.path(path))


@fault(PROBLEM, "the hook is not installed")
def no_hook(lab: Lab) -> None:
    lab.path(HOOK).unlink()


@fault(PROBLEM, "/etc/libvirt/hooks/qemu belongs to somebody else")
def foreign_hook(lab: Lab) -> None:
    foreign(lab, HOOK)


@fault(PROBLEM, "50-emupin belong to somebody else")
def foreign_hooks(lab: Lab) -> None:
    foreign(lab, HOOK)
    foreign(lab, IN_FOLDER)


@fault(PROBLEM, "has carriage returns (CRLF line ends)")
def hook_with_carriage_returns(lab: Lab) -> None:
    lab.path(HOOK).write_bytes(lab.path(HOOK).read_bytes().replace(b"\n", b"\r\n"))


@fault(PROBLEM, "/etc/libvirt/hooks is writable by others (mode 777)")
def open_folder(lab: Lab) -> None:
    lab.path("etc/libvirt/hooks").chmod(0o777)


@fault(PROBLEM, "/etc/libvirt is writable by others (mode 775)")
def open_folder_above(lab: Lab) -> None:
    lab.path("etc/libvirt").chmod(0o775)


@fault(WARNING, "1 of 1 policies and topologies that the last entries name are not kept")
def emptied_policies(lab: Lab) -> None:
    entry = json.dumps({"time": lab.entry("prepare")[10:37], "op": "prepare", "policy": "0" * 64, "facts": {}})
    lab.audit(entry + "\n")


@fault(PROBLEM, "a link that leads nowhere")
def dangling_hook(lab: Lab) -> None:
    lab.path(HOOK).unlink()
    lab.path(HOOK).symlink_to("gone")


@fault(PROBLEM, "is a link; AppArmor")
def linked_hook(lab: Lab) -> None:
    lab.path(HOOK).rename(lab.path("usr/local/qemu"))
    lab.path(HOOK).symlink_to("../../../usr/local/qemu")


@fault(PROBLEM, "is not executable")
def hook_without_mode(lab: Lab) -> None:
    lab.path(HOOK).chmod(0o644)


@fault(PROBLEM, "is writable by others (mode 777)")
def writable_hook(lab: Lab) -> None:
    lab.path(HOOK).chmod(0o777)


@fault(PROBLEM, "several copies of the hook run")
def two_copies(lab: Lab) -> None:
    lab.path(IN_FOLDER).parent.mkdir()
    shutil.copy(lab.path(HOOK), lab.path(IN_FOLDER))


@fault(PROBLEM, "several copies of the hook run")
def executable_backup(lab: Lab) -> None:
    move(lab)
    shutil.copy(lab.path(IN_FOLDER), lab.path(f"{IN_FOLDER}~"))


@fault(WARNING, "belongs to oVirt's VDSM")
def place_of_another(lab: Lab) -> None:
    lab.path("etc/vdsm").mkdir()


@fault(WARNING, "99-last runs after")
def later_hook(lab: Lab) -> None:
    foreign(lab, "etc/libvirt/hooks/qemu.d/99-last")


@fault(PROBLEM, "neither libvirtd nor virtqemud runs")
def no_daemon(lab: Lab) -> None:
    shutil.rmtree(lab.path(f"proc/{PID}"))


@fault(WARNING, "both libvirtd and virtqemud run")
def both_daemons(lab: Lab) -> None:
    lab.run_daemon("virtqemud", 1001)


@fault(PROBLEM, "has another /etc/libvirt/hooks: it runs in a container")
def daemon_in_a_container(lab: Lab) -> None:
    lab.path(f"proc/{PID}/root/etc/libvirt/hooks").mkdir(parents=True)


@fault(PROBLEM, "libvirt 6.0.0 does not look into /etc/libvirt/hooks/qemu.d")
def old_libvirt(lab: Lab) -> None:
    move(lab)
    lab.answers["libvirtd --version"] = Answer(0, "libvirtd (libvirt) 6.0.0")


@fault(PROBLEM, "has not been reloaded since")
def no_reload(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    lab.answers["systemctl"] = Answer(0, f"MainPID={PID}\nStateChangeTimestamp=@{int(lab.now) - 3600}")


@fault(PROBLEM, "the guest nfv-1 was started after the hook was installed")
def guest_without_hook(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    lab.run_daemon("qemu-kvm", 4242)
    lab.write("run/libvirt/qemu/nfv-1.pid", "4242")


@fault(PROBLEM, "does not let libvirt run /usr/bin/python3")
def interpreter_outside_the_profile(lab: Lab) -> None:
    lab.write("sys/module/apparmor/parameters/enabled", "Y\n")
    lab.write(f"proc/{PID}/attr/current", "libvirtd (enforce)\n")
    lab.path("usr/bin/python3").unlink()
    lab.write("opt/python/bin/python3", "", 0o755)
    lab.path("usr/bin/python3").symlink_to("../../opt/python/bin/python3")


@fault(PROBLEM, "virt_hooks_unconfined is off")
def hooks_confined(lab: Lab) -> None:
    lab.write("sys/fs/selinux/enforce", "1")
    lab.write("sys/fs/selinux/booleans/virt_hooks_unconfined", "0 0")


@fault(PROBLEM, "has no SELinux label")
def no_label(lab: Lab) -> None:
    lab.write("sys/fs/selinux/enforce", "1")
    lab.labelled = None


@fault(PROBLEM, "the SELinux label is wrong")
def wrong_label(lab: Lab) -> None:
    lab.write("sys/fs/selinux/enforce", "1")
    lab.answers["matchpathcon"] = Answer(1, "has context user_tmp_t, should be virt_hook_t")


@fault(PROBLEM, "no SELinux rule lets virtqemud_t execute virt_hook_t")
def missing_rule(lab: Lab) -> None:
    lab.write("sys/fs/selinux/enforce", "1")
    lab.write("sys/fs/selinux/booleans/virt_hooks_unconfined", "1 1")
    lab.run_daemon("virtqemud")
    lab.answers["sesearch"] = Answer(0, "")


@fault(PROBLEM, "/usr/bin/python3, which the hook starts, is missing")
def no_interpreter(lab: Lab) -> None:
    lab.path("usr/bin/python3").unlink()


@fault(PROBLEM, "is Python 3.6, too old")
def old_interpreter(lab: Lab) -> None:
    lab.answers["/usr/bin/python3 -I -S"] = Answer(0, "3 6 cpython-36")


@fault(PROBLEM, "/usr/bin/python3 does not start")
def broken_interpreter(lab: Lab) -> None:
    lab.answers["/usr/bin/python3 -I -S"] = Answer(127, "error while loading shared libraries")


@fault(PROBLEM, "PyYAML is missing")
def no_yaml(lab: Lab) -> None:
    lab.answers["/usr/bin/python3 -I -c import yaml"] = Answer(1, "ModuleNotFoundError")


@fault(WARNING, "libvirt's Python module is missing")
def no_libvirt_module(lab: Lab) -> None:
    lab.answers["/usr/bin/python3 -I -c import libvirt"] = Answer(1, "ModuleNotFoundError")


@fault(PROBLEM, "the library /usr/local/lib/emupin/emupin is missing")
def no_library(lab: Lab) -> None:
    shutil.rmtree(lab.path(LIBRARY))


@fault(PROBLEM, "the library /etc/libvirt/src/emupin is missing")
def hook_copied_from_a_checkout(lab: Lab) -> None:
    shutil.copy(PROJECT / "hooks/qemu", lab.path(HOOK))


@fault(PROBLEM, "missing or damaged: node/enforce.py")
def missing_module(lab: Lab) -> None:
    lab.path(f"{LIBRARY}/node/enforce.py").unlink()


@fault(PROBLEM, "missing or damaged: base/cpuset.py")
def missing_module_of_the_ground(lab: Lab) -> None:
    lab.path(f"{LIBRARY}/base/cpuset.py").unlink()


@fault(PROBLEM, "missing or damaged: engine/plan.py")
def torn_module(lab: Lab) -> None:
    path = lab.path(f"{LIBRARY}/engine/plan.py")
    path.write_text('"""' + path.read_text()[10:300])


@fault(PROBLEM, "can be changed by others")
def writable_module(lab: Lab) -> None:
    lab.path(f"{LIBRARY}/hook.py").chmod(0o666)


@fault(WARNING, "modules are not byte-compiled")
def stale_byte_code(lab: Lab) -> None:
    os.utime(lab.path(f"{LIBRARY}/hook.py"), (0, 0))


@fault(PROBLEM, "there is no policy")
def no_policy(lab: Lab) -> None:
    lab.path("etc/emupin/policy.yaml").unlink()


@fault(PROBLEM, "two policies")
def two_policies(lab: Lab) -> None:
    lab.write("etc/emupin/policy.json", "{}", 0o600)


@fault(PROBLEM, "policy.yaml:2: rulez: unknown key")
def invalid_policy(lab: Lab) -> None:
    lab.set_policy("version: 1\nrulez: []\nrules: []\n")


@fault(PROBLEM, "policy.yaml: is writable by others (mode 666)")
def writable_policy(lab: Lab) -> None:
    lab.set_policy(mode=0o666)


@fault(PROBLEM, "etc/emupin: is writable by others")
def writable_policy_folder(lab: Lab) -> None:
    lab.path("etc/emupin").chmod(0o777)


@fault(WARNING, "the last good policy is in force")
def last_good_policy(lab: Lab) -> None:
    lab.write("var/lib/emupin/policies/good.yaml", POLICY, 0o600)
    lab.write("var/lib/emupin/last-good", "good.yaml\n", 0o600)
    lab.set_policy("version: 1\n")


@fault(PROBLEM, "there is no last good policy")
def no_last_good_policy(lab: Lab) -> None:
    lab.set_policy("version: 1\n")


@fault(PROBLEM, "CPU 2 is in host.reserved too")
def reserved_pool(lab: Lab) -> None:
    lab.set_policy(POLICY.replace('"0-1"', '"0-2"'))


@fault(PROBLEM, "host.pool: no CPU of 2-3 is online")
def pool_offline(lab: Lab) -> None:
    lab.write("sys/devices/system/cpu/online", "0-1\n")


@fault(WARNING, "host.pool: CPU 3 is not online")
def pool_partly_offline(lab: Lab) -> None:
    lab.write("sys/devices/system/cpu/online", "0-2,4-15\n")


@fault(WARNING, "CPUs 2-3 are isolated")
def isolated_pool(lab: Lab) -> None:
    lab.write("sys/devices/system/cpu/isolated", "2-15\n")
    lab.set_policy(POLICY.replace('"dedicated"', '"pool"'))


@fault(PROBLEM, "CPU 3 is in Nova's cpu_dedicated_set, which gives them to vCPUs sooner or later")
def pool_of_nova(lab: Lab) -> None:
    lab.write("etc/nova/nova.conf", "[DEFAULT]\ndebug = true\n[compute]\ncpu_dedicated_set = 2-15,^2\n")


@fault(PROBLEM, "powers them off while unused")
def pool_switched_off(lab: Lab) -> None:
    text = "[compute]\ncpu_dedicated_set=2-7\n[libvirt]\ncpu_power_management = True\n"
    lab.write("etc/kolla/nova-compute/nova.conf", text)


@fault(PROBLEM, "2 pins wait in ")
def orders_that_nobody_carries_out(lab: Lab) -> None:
    """One that is too old, one that a process took two hours ago; the others are being seen to, or were never whole."""
    for name, age in (("a", 300), (".b", 7200), ("c", 30), (".d", 300), ("e.4711", 7200)):
        order = lab.write(f"run/emupin/orders/{name}", "{}")
        os.utime(order, (lab.now - age, lab.now - age))


@fault(PROBLEM, "guest nfv-9 cannot start with its <emulatorpin> 99: CPU 99 is not online")
def definition_with_an_impossible_pin(lab: Lab) -> None:
    lab.write("etc/libvirt/qemu/nfv-9.xml", domain_xml("nfv-9", "99"))


@fault(PROBLEM, "guest nfv-9 cannot start with its <iothreadpin> of iothread1 99: CPU 99 is not online")
def definition_with_an_impossible_pin_of_an_iothread(lab: Lab) -> None:
    pin = "<iothreadpin iothread='1' cpuset='99'/></cputune><iothreads>1</iothreads>"
    lab.write("etc/libvirt/qemu/nfv-9.xml", domain_xml("nfv-9").replace("</cputune>", pin))


@fault(WARNING, "no cgroup has the cpuset controller")
def no_cpuset(lab: Lab) -> None:
    lab.write("proc/self/mountinfo", MOUNTS.replace("cpuset", "cpu"))


@fault(WARNING, "running without a cpuset cgroup: nfv-1")
def guest_without_cpuset(lab: Lab) -> None:
    lab.guest("none", wants="2,3")
    lab.write("proc/self/mountinfo", MOUNTS)


@fault(WARNING, "before Linux 5.16, vhost workers are in the root cgroup")
def old_kernel(lab: Lab) -> None:
    lab.write("proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    lab.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n")
    lab.write("proc/sys/kernel/osrelease", "5.10.0-26-amd64\n")


@fault(WARNING, "emulator threads of one guest on different CPUs (Linux 6.2")
def kept_mask(lab: Lab) -> None:
    lab.write("proc/sys/kernel/osrelease", "6.12.9-amd64\n")
    lab.guest(wants="3")


@fault(WARNING, "threads that are not vCPUs in the cgroup of a vCPU: nfv-1")
def stranger_in_a_vcpu_group(lab: Lab) -> None:
    lab.guest(wants="2,3", stranger="worker")
    xml = lab.path("run/libvirt/qemu/nfv-1.xml")
    xml.write_text(xml.read_text().replace("<vcpu id='1' pid='4245'/>", ""))


@fault(PROBLEM, "is not a folder: nothing is audited")
def file_instead_of_a_folder(lab: Lab) -> None:
    lab.path("var/log/emupin").rmdir()
    lab.write("var/log/emupin", "")


@fault(WARNING, "no `audit` command finds audit.jsonl.2.zst and 1 more in ")
def trail_of_another_compressor(lab: Lab) -> None:
    for number, end in ((1, ""), (2, ".zst"), (3, ".zst"), (4, ".gz")):
        lab.write(f"var/log/emupin/audit.jsonl.{number}{end}", "")


@fault(PROBLEM, "var/lib/emupin is writable by others")
def writable_folder(lab: Lab) -> None:
    lab.path("var/lib/emupin").chmod(0o777)


def with_free(lab: Lab, folder: str, blocks: int) -> None:
    """A disk of 1 GiB below `folder`."""

    def disk(path: str) -> os.statvfs_result:
        if path == str(lab.path(folder)):
            return os.statvfs_result((4096, 4096, 1 << 18, blocks, blocks, 1 << 16, 5000, 5000, 0, 255))
        return os.statvfs(path)

    lab.disk = disk


@fault(PROBLEM, "var/log/emupin is full: nothing is audited")
def full_disk(lab: Lab) -> None:
    with_free(lab, "var/log/emupin", 0)


@fault(WARNING, "is almost full (3 MiB)")
def nearly_full_disk(lab: Lab) -> None:
    with_free(lab, "var/log/emupin", 1000)


@fault(PROBLEM, "run is full: CPUs cannot be claimed")
def full_run(lab: Lab) -> None:
    with_free(lab, "run", 0)


@fault(PROBLEM, "audit.jsonl is not a regular file")
def linked_trail(lab: Lab) -> None:
    lab.path("var/log/emupin/audit.jsonl").symlink_to("elsewhere")


@fault(WARNING, "audit.jsonl may be read or written by others")
def public_trail(lab: Lab) -> None:
    lab.audit(lab.entry("prepare"), 0o644)


@fault(WARNING, "is cut off (power loss?)")
def torn_trail(lab: Lab) -> None:
    lab.audit(lab.entry("prepare") + '{"time": "20')


@fault(WARNING, "1 of the last 2 lines of")
def damaged_trail(lab: Lab) -> None:
    lab.audit("garbage\n" + lab.entry("prepare"))


@fault(PROBLEM, "the audit trail is older than the last decision")
def stale_trail(lab: Lab) -> None:
    with Ledger(str(lab.root), None) as ledger:
        ledger.claim(UUID, frozenset({2}), dedicated=False)
        ledger.save()
    lab.audit(lab.entry("prepare", age=3600))
    os.utime(lab.path("var/log/emupin/audit.jsonl"), (lab.now - 3600,) * 2)


@fault(PROBLEM, "the audit trail lacks entries: 1 entry could not be written")
def lost_entry(lab: Lab) -> None:
    lab.audit(lab.entry("prepare"))
    lab.write("run/emupin/audit-lost/2026-01-01T00:00:00.000000Z_1_prepare", "")


@fault(WARNING, "1 of the last 2 lines of")
def deep_trail(lab: Lab) -> None:
    """More than Python's JSON reader takes."""
    lab.audit("[" * 60_000 + "\n" + lab.entry("prepare"))


@fault(WARNING, "policy.yaml has a time in the future")
def file_from_the_future(lab: Lab) -> None:
    os.utime(lab.path("etc/emupin/policy.yaml"), (lab.now + 3600,) * 2)


@fault(WARNING, "the last entry of")
def entry_from_the_future(lab: Lab) -> None:
    lab.audit(lab.entry("prepare", age=-3600))


@fault(WARNING, "the clock is not synchronised")
def clock_alone(lab: Lab) -> None:
    lab.answers["timedatectl"] = Answer(0, "no")


CONSEQUENCES = {
    "invalid_policy": ["there is no last good policy"],
    "last_good_policy": ["is missing"],
    "no_last_good_policy": ["is missing"],
    "reserved_pool": ["there is no last good policy"],
    "two_policies": ["there is no last good policy"],
    "writable_policy": ["there is no last good policy"],
    "writable_policy_folder": ["there is no last good policy"],
}
"""What else must be found, where one fault brings another."""


def test_a_trail_that_was_just_rotated_is_as_good_as_before(lab: Lab) -> None:
    stale_trail(lab)
    trail = lab.path("var/log/emupin/audit.jsonl")
    os.utime(trail, (lab.now,) * 2)
    trail.rename(f"{trail}.1")
    assert lab.faults() == []
    assert "there is no audit trail since it was rotated" in str(lab.examine())


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_with_its_cure_and_nothing_else(lab: Lab, name: str) -> None:
    level, text, break_it = FAULTS[name]
    break_it(lab)
    found = lab.faults()
    assert [finding for finding in found if finding.level == level and text in finding.what and finding.cure]
    wanted = [text, *CONSEQUENCES.get(name, [])]
    assert [finding for finding in found if not any(each in finding.what for each in wanted)] == []


@as_root()
@pytest.mark.parametrize(
    "path", [HOOK, f"{LIBRARY}/hook.py", "etc/emupin/policy.yaml", "var/log/emupin/audit.jsonl", "var/lib/emupin"]
)
def test_file_of_another_user_is_found(lab: Lab, path: str) -> None:
    lab.audit(lab.entry("prepare"))
    os.chown(lab.path(path), 4711, 4711)
    assert any("4711" in finding.what and finding.level == PROBLEM for finding in lab.faults())


# -- what tells of a reload --------------------------------------------------------------------------------------------


def reload_finding(lab: Lab) -> Diagnosis:
    (found,) = (finding for finding in lab.examine() if f"({PID})" in finding.what)
    return found


def test_a_reload_that_nothing_shows_is_a_warning(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    found = reload_finding(lab)
    assert (found.level, f"kill -HUP {PID}" in found.cure) == (WARNING, True)
    assert lab.faults() == [found]


def test_reload_is_seen_in_systemd(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    lab.answers["systemctl"] = Answer(0, f"MainPID={PID}\nStateChangeTimestamp=@{int(lab.now) + 5}")
    assert reload_finding(lab).level == OK


def test_systemd_of_another_daemon_tells_nothing(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    lab.answers["systemctl"] = Answer(0, f"MainPID=1\nStateChangeTimestamp=@{int(lab.now) + 5}")
    assert reload_finding(lab).level == WARNING


@pytest.mark.parametrize(
    ("operation", "age", "level"),
    [
        ("started", 0, OK),
        ("prepare", 1800, OK),
        ("prepare", 7200, WARNING),
        ("apply", 0, WARNING),
        ("record", 0, WARNING),
    ],
)
def test_reload_is_seen_in_the_audit_trail(lab: Lab, operation: str, age: float, level: str) -> None:
    lab.run_daemon(age=3600)
    lab.audit(lab.entry(operation, age))
    assert reload_finding(lab).level == level


def test_daemon_of_an_ordinary_user_does_not_count(lab: Lab) -> None:
    lab.write(f"proc/{PID}/status", "Name:\tlibvirtd\nUid:\t1000\t1000\t1000\t1000\n")
    assert "neither libvirtd nor virtqemud runs" in lab.faults()[0].what


def test_a_guest_that_is_younger_than_the_ledger_tells_that_the_hook_is_not_called(lab: Lab) -> None:
    lab.run_daemon(age=3600)
    claims = lab.write("run/emupin/claims", "left over")
    for path in (claims, lab.path(HOOK)):
        os.utime(path, (lab.now - 1800, lab.now - 1800))
    lab.run_daemon("qemu-kvm", 4242, age=-120)
    lab.write("run/libvirt/qemu/nfv-1.pid", "4242\n")
    assert "nfv-1 was started after the hook was installed" in reload_finding(lab).what


@pytest.mark.parametrize("is_root", [True, False])
def test_an_ordinary_user_is_told_what_could_not_be_looked_at(monkeypatch: pytest.MonkeyPatch, is_root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    text = render([Diagnosis(OK, "fine"), Diagnosis(UNKNOWN, "a secret place: Permission denied")], False, False)
    assert ("all is well" in text) == is_root
    assert ("a secret place" in text) != is_root
    assert ("run it as root" in text) != is_root


def test_socket_activated_daemon_that_sleeps_is_well(lab: Lab) -> None:
    no_daemon(lab)
    lab.write("run/libvirt/virtqemud-sock", "")
    assert lab.faults() == []


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_marker_is_the_second_line_of_the_hook() -> None:
    assert (PROJECT / "hooks/qemu").read_text().splitlines()[1] == MARKER


def test_nothing_is_written(lab: Lab) -> None:
    lab.guest()
    before = sorted(lab.root.rglob("*"))
    lab.examine()
    assert sorted(lab.root.rglob("*")) == before


def test_names_cannot_act_on_the_terminal() -> None:
    text = render([Diagnosis(PROBLEM, "guest \x1b[2J", "cure\nit", "kernel")], verbose=False, colour=False)
    assert "\x1b" not in text
    assert text.splitlines()[2].strip() == "cure\\nit"


def test_command_on_a_tree(lab: Lab) -> None:
    well = emupin(lab.root, "doctor")
    said = "no problems found, but an ordinary user" if os.geteuid() else "all is well"
    assert (well.returncode, said in well.stdout.decode(), well.stderr) == (0, True, b"")
    no_hook(lab)
    ill = emupin(lab.root, "doctor")
    assert ill.returncode == 1
    assert "hook\n  problem  the hook is not installed\n             run install.sh\n" in ill.stdout.decode()
    plain = json.loads(emupin(lab.root, "doctor", "--json").stdout)
    assert plain["problem"] == 1
    assert {"level": "problem", "what": "the hook is not installed", "cure": "run install.sh", "area": "hook"} in plain[
        "findings"
    ]


def test_command_that_lacks_a_module_itself_says_what_to_do(lab: Lab) -> None:
    lab.path(f"{LIBRARY}/doctor/hook.py").unlink()
    launcher = [sys.executable, str(lab.path("usr/local/bin/emupin")), "doctor"]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "the installation is damaged; run install.sh" in done.stderr


def test_compiled_policy_goes_on_without_pyyaml(lab: Lab) -> None:
    assert store.find(str(lab.root)).policy
    shutil.rmtree(lab.path("var/lib/emupin/policies"))
    hidden = "import sys; sys.modules.update(yaml=None); from emupin.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, env=environment(lab.root), check=False)
    assert done.returncode == 1
    assert b"the compiled copy of the policy is still in force" in done.stdout
    assert b"does nothing" not in done.stdout


def test_verbose_shows_every_check(lab: Lab) -> None:
    findings = lab.examine()
    text = emupin(lab.root, "doctor", "--verbose").stdout.decode()
    assert all(finding.what in text for finding in findings if finding.area in ("hook", "policy", "kernel"))


def test_stale_status_file_is_no_fault(lab: Lab) -> None:
    lab.write("run/libvirt/qemu/gone.xml", f"<domstatus pid='4999'>{domain_xml('gone')}</domstatus>")
    assert lab.faults() == []


def test_a_root_that_is_not_there_ends_with_findings(tmp_path: Path) -> None:
    done = emupin(tmp_path / "no" / "such", "doctor")
    assert done.returncode in (1, 2)
    assert b"does not exist" in done.stdout
