"""A guest's helper processes on recorded hosts: shown by `status`, and neither drift nor anybody's to move.

The files are pretended, in the shape of those of libvirt 9.0 with virtiofsd; the real ones are in `tests/real`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from guests import PADDING, SCHED, STATUS, Machine, Task
from hosts import UUID, FakeGuest, FakeThread, Host

from emupin.guest.threads import HELPER, PF_KTHREAD, read_status_file
from emupin.live.observe import Observed
from emupin.live.prometheus import render
from emupin.live.survey import take
from emupin.node.claims import from_mask, to_mask
from emupin.node.enforce import enforce
from emupin.screen import statustext

HELPERS = {9000: Task("virtiofsd", "emulator", "0-15"), 9002: Task("pool-0", "emulator", "3", cpu=3)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    host = Host(tmp_path)
    host.set_policy()
    return Machine(host)


def add_process(host: Host, pid: int, tasks: dict[int, Task], flags: int = 0) -> None:
    for tid, task in tasks.items():
        values = {**vars(task), "tid": tid, "pid": pid, "padding": PADDING}
        fields = ["S", *map(str, range(4, 9)), str(flags), *map(str, range(10, 39)), str(task.cpu), *["0"] * 13]
        host.write(f"proc/{pid}/task/{tid}/status", STATUS.format(**values))
        host.write(f"proc/{pid}/task/{tid}/stat", f"{tid} ({task.name}) {' '.join(fields)}\n")
        host.write(f"proc/{pid}/task/{tid}/schedstat", f"{task.run} {task.wait} 77\n")
        host.write(f"proc/{pid}/task/{tid}/sched", SCHED.format(**values))
    host.write(f"proc/{pid}/comm", f"{tasks[pid].name}\n")


def list_processes(machine: Machine, *pids: int) -> None:
    """As the cgroup of the emulator threads has them; 0 is one outside this namespace."""
    text = "".join(f"{pid}\n" for pid in pids)
    machine.host.write(f"sys/fs/cgroup/cpuset{machine.folder}/emulator/cgroup.procs", text)


def look(root: Path) -> Observed:
    (guest,) = take(str(root), [], None).guests
    return guest


def helpers(root: Path) -> list[tuple[int, str, list[int]]]:
    found = look(root).assessment.threads
    assert not [each for each in found if each.thread.kind == HELPER and (each.strays or each.expected is not None)]
    return [
        (each.thread.tid, each.thread.name, sorted(each.thread.allowed)) for each in found if each.thread.kind == HELPER
    ]


def test_processes_in_the_cgroup_are_shown_and_are_no_drift(machine: Machine, tmp_path: Path) -> None:
    add_process(machine.host, 9000, HELPERS)
    list_processes(machine, 4242, 9000, 0)
    assert helpers(tmp_path) == [(9000, "virtiofsd", list(range(16))), (9002, "pool-0", [3])]
    found = take(str(tmp_path), [], None)
    assert (found.exit_status, found.counts["in_line"]) == (0, 1)
    text = statustext.render(found, None, 0, False).splitlines()
    assert [line.split() for line in text if "virtiofsd" in line] == [
        ["helper", "9000", "virtiofsd", "0-15", "2", "100", "10", "17", "1.50s", "0.25s"]
    ]
    assert text[-4].split()[:3] == ["helper", "9000", "virtiofsd"], "behind the guest's own threads"
    assert re.search(rb'emupin_threads\{.*kind="helper",\} 2\n', render(found))


def test_a_process_that_ends_meanwhile_is_left_out(machine: Machine, tmp_path: Path) -> None:
    add_process(machine.host, 9000, HELPERS)
    list_processes(machine, 4242, 9000, 9100)
    (tmp_path / "proc/9000/task/9002/stat").unlink()
    assert [tid for tid, _, _ in helpers(tmp_path)] == [9000]


def test_a_kernel_worker_in_the_same_cgroup_is_no_helper(machine: Machine, tmp_path: Path) -> None:
    """Linux before 6.4 has vhost workers as processes of their own."""
    add_process(machine.host, 4300, {4300: Task("vhost-4242", "emulator", "2")}, PF_KTHREAD)
    group = f"9:memory:/\n4:cpuset:{machine.folder}/emulator\n"
    machine.host.write("proc/4300/cgroup", group)
    for name in ("status", "stat", "schedstat", "sched"):
        (tmp_path / "proc/4300" / name).write_text((tmp_path / "proc/4300/task/4300" / name).read_text())
    (tmp_path / "proc/4242/fd/20").symlink_to("/dev/vhost-net")
    list_processes(machine, 4242, 4300)
    assert helpers(tmp_path) == []
    assert 4300 in look(tmp_path).counters


def test_a_kernel_helper_among_the_threads_is_shown_as_one(machine: Machine, tmp_path: Path) -> None:
    machine.tasks[8] = Task("kvm-nx-lpage-re", "vcpu0", "9")
    machine.write()
    assert helpers(tmp_path) == [(4250, "kvm-nx-lpage-re", [9])]
    assert look(tmp_path).assessment.in_line


@pytest.mark.parametrize(
    ("file", "name", "shown"),
    [
        ("7-nfv-1-fs0-fs.pid", "virtiofsd", True),
        ("swtpm/7-nfv-1-swtpm.pid", "swtpm", True),
        ("passt/7-nfv-1-net0.pid", "passt.avx2", True),
        ("7-nfv-1-fs0-fs.pid", "bash", False),
        ("7-nfv-10-fs0-fs.pid", "virtiofsd", False),
    ],
)
def test_without_a_cpuset_controller_pid_files_tell(tmp_path: Path, file: str, name: str, shown: bool) -> None:
    host = Host(tmp_path)
    host.set_policy()
    Machine(host)
    for path in (tmp_path / "proc/4242").rglob("cgroup"):
        path.write_text("4:cpu:/machine/qemu-7-nfv-1.libvirt-qemu/emulator\n")
    host.write(f"run/libvirt/qemu/{file}", "9000")
    host.write("run/libvirt/qemu/7-nfv-1-gone-fs.pid", "9100\n")
    host.write("run/libvirt/qemu/7-nfv-1-torn-fs.pid", "")
    add_process(host, 9000, {9000: Task(name, "", "0-15")})
    add_process(host, 9001, {9001: Task("child", "", "5")})
    host.write("proc/9000/task/9000/children", "9001 ")
    assert [tid for tid, _, _ in helpers(tmp_path)] == ([9000, 9001] if shown else [])


def test_nobody_moves_them(tmp_path: Path) -> None:
    """No thread of another process is set, whatever its CPUs; what its cgroup does to it is the cgroup's."""
    threads = {4242: FakeThread("qemu-system-x86", set(range(16)), "emulator")}
    guest = FakeGuest(Host(tmp_path), "v1", threads, "/machine/nfv", cpusets={"emulator": set(range(2, 6))})
    (guest.group_folder("emulator") / "cgroup.procs").write_text("4242\n9000\n")
    add_process(guest.host, 9000, HELPERS)
    moved: list[int] = []

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        moved.append(tid)
        guest.set_affinity(tid, cpus)

    status = read_status_file(str(tmp_path), "nfv-1")
    assert status.domain.uuid == UUID
    enforce(str(tmp_path), status, frozenset({2}), set_affinity)
    assert set(moved) <= {4242}


@pytest.mark.parametrize("cpus", [set(), {0}, {3, 4, 700}, set(range(0, 16384, 5))])
def test_masks_and_sets(cpus: set[int]) -> None:
    assert from_mask(to_mask(cpus)) == cpus
