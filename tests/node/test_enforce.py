"""Enforcement on live threads, on a pretended kernel: the layouts are real, the processes are not.

What a real kernel does with a real QEMU is shown in `tests/real`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import UUID, FakeGuest, FakeThread, Host

from emupin.base import cpuset
from emupin.base.errors import EnforceError, HostError
from emupin.guest.threads import PF_KTHREAD, PF_NO_SETAFFINITY, check_process, read_status_file, read_threads
from emupin.node.enforce import Enforced, enforce

if TYPE_CHECKING:
    from pathlib import Path

    from emupin.guest.threads import Thread

UNION = {2, 3, 4, 5}
MAIN, RCU, VCPU0, VCPU1, IOTHREAD, WORKER, VNC, VHOST = 4242, 4243, 4250, 4251, 4260, 4261, 4270, 4280


MACHINE = "/machine/qemu-7-nfv-1.libvirt-qemu"


def guest_of(folder: Path, layout: str, machine: str = MACHINE) -> FakeGuest:
    groups = layout != "none"

    def group(name: str) -> str:
        return name if groups else ""

    threads = {
        MAIN: FakeThread("qemu-system-x86", set(UNION), group("emulator")),
        RCU: FakeThread("qemu-system-x86", set(UNION), group("emulator")),
        VCPU0: FakeThread("CPU 0/KVM", {2}, group("vcpu0")),
        VCPU1: FakeThread("CPU 1/KVM", {3}, group("vcpu1")),
        IOTHREAD: FakeThread("IO iothread1", {7}, group("iothread1")),
        WORKER: FakeThread("worker", {7}, group("iothread1")),
        VNC: FakeThread("vnc_worker", set(UNION), group("emulator")),
        VHOST: FakeThread(f"vhost-{MAIN}", set(UNION), group("emulator")),
    }
    cpusets = {"emulator": UNION, "vcpu0": {2}, "vcpu1": {3}, "iothread1": {7}} if groups else {}
    return FakeGuest(Host(folder), layout, threads, machine, cpusets=dict(cpusets))


def run(guest: FakeGuest, cpus: set[int]) -> Enforced:
    root = str(guest.host.root)
    return enforce(root, read_status_file(root, guest.name), frozenset(cpus), guest.set_affinity)


@pytest.mark.parametrize("layout", ["v1", "v2", "none"])
def test_vhost_workers_apart_on_a_pretended_kernel(tmp_path: Path, layout: str) -> None:
    """The cgroup that they share covers both; every thread is where it belongs, and a second time nothing is to do."""
    guest = guest_of(tmp_path, layout)
    root = str(guest.host.root)
    status = read_status_file(root, guest.name)
    for done in (True, False):
        found = enforce(root, status, frozenset((2,)), guest.set_affinity, vhost=frozenset((6, 7)))
        assert bool(found.moved) is done
        assert [guest.allowed(tid) for tid in (MAIN, RCU, VNC, VHOST)] == ["2", "2", "2", "6-7"]
        assert [guest.allowed(tid) for tid in (VCPU0, VCPU1, IOTHREAD)] == ["2", "3", "7"]
    if layout != "none":
        assert guest.cpusets["emulator"] == {2, 6, 7}


def kinds(guest: FakeGuest) -> dict[int, str]:
    root = str(guest.host.root)
    threads: list[Thread] = read_threads(root, guest.pid, read_status_file(root, guest.name))
    return {thread.tid: thread.kind for thread in threads}


@pytest.mark.parametrize("layout", ["v1", "v2", "none"])
def test_every_emulator_thread_is_moved_and_no_other_on_a_faked_kernel(tmp_path: Path, layout: str) -> None:
    guest = guest_of(tmp_path, layout)
    run(guest, {2})
    assert {tid: guest.allowed(tid) for tid in guest.threads} == {
        MAIN: "2", RCU: "2", VCPU0: "2", VCPU1: "3", IOTHREAD: "7", WORKER: "7", VNC: "2", VHOST: "2",
    }  # fmt: skip
    assert run(guest, {2}) == Enforced(0, ()), "a second run changes nothing"


@pytest.mark.parametrize("layout", ["v1", "v2", "none"])
def test_iothreads_follow_where_they_are_to_on_a_faked_kernel(tmp_path: Path, layout: str) -> None:
    guest, root = guest_of(tmp_path, layout), str(tmp_path)
    enforce(root, read_status_file(root, guest.name), frozenset({2}), guest.set_affinity, follow=True)
    assert {tid: guest.allowed(tid) for tid in guest.threads} == {
        MAIN: "2", RCU: "2", VCPU0: "2", VCPU1: "3", IOTHREAD: "2", WORKER: "2", VNC: "2", VHOST: "2",
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_a_set_that_adds_cpus_reaches_threads_that_asked_for_less_on_a_faked_kernel(
    tmp_path: Path, layout: str
) -> None:
    """Linux >= 6.2: a thread that asked for 2-5 and whose cpuset becomes 4,9 is allowed 4 only."""
    guest = guest_of(tmp_path, layout)
    run(guest, {4, 9})
    assert {guest.allowed(tid) for tid in (MAIN, RCU, VNC, VHOST)} == {"4,9"}


def test_threads_are_told_by_cgroup_before_name(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "v1")
    guest.threads[4290] = FakeThread("kvm-nx-lpage-re", {2}, "vcpu0")
    guest.threads[4291] = FakeThread("CPU 7/fancy", set(UNION), "emulator")
    guest.threads[4292] = FakeThread("IO mon_iothread", set(UNION), "emulator")
    guest.sync()
    assert kinds(guest) == {
        MAIN: "emulator", RCU: "emulator", VCPU0: "vcpu", VCPU1: "vcpu", IOTHREAD: "iothread", WORKER: "iothread",
        VNC: "emulator", VHOST: "vhost", 4290: "helper", 4291: "emulator", 4292: "emulator",
    }  # fmt: skip


def test_without_cgroups_threads_are_told_by_status_file_and_name(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "none")
    guest.threads[4292] = FakeThread("IO mon_iothread", set(UNION), "")
    guest.threads[4293] = FakeThread("worker", set(UNION), "")
    guest.sync()
    found = kinds(guest)
    assert found[WORKER] == "iothread", "it runs where the iothread runs"
    assert found[4292] == found[4293] == "emulator"
    assert found[VCPU0] == found[VCPU1] == "vcpu"


def test_an_unpinned_iothread_keeps_no_worker_on_a_vcpus_cpu(tmp_path: Path) -> None:
    """Without cgroups a worker that runs where vCPUs do may be the main loop's: it does, and no pin is broken."""
    guest = guest_of(tmp_path, "none")
    guest.threads[IOTHREAD].wants, guest.threads[WORKER].wants = set(UNION), set(UNION)
    guest.sync()
    assert (kinds(guest)[IOTHREAD], kinds(guest)[WORKER]) == ("iothread", "emulator")
    run(guest, {2})
    assert (guest.allowed(IOTHREAD), guest.allowed(WORKER)) == ("2-5", "2")


@pytest.mark.parametrize(
    ("pin", "emulator", "kind"),
    [({7}, UNION, "iothread"), (set(), UNION, "unknown"), ({2, 3, 4, 5}, UNION, "unknown")],
    ids=["pinned elsewhere", "not pinned", "pinned to the same CPUs"],
)
def test_nameless_iothreads_are_not_taken_for_emulator_threads(
    tmp_path: Path, pin: set[int], emulator: set[int], kind: str
) -> None:
    """QEMU with `debug-threads=off`, no cgroups: a pin tells an iothread; what may be one is left alone, and said."""
    guest = guest_of(tmp_path, "none")
    for tid in (IOTHREAD, VCPU0, VCPU1):
        guest.threads[tid].name = guest.threads[MAIN].name
    guest.threads[IOTHREAD].wants = set(pin or emulator)
    guest.sync()
    status = guest.host.root / f"run/libvirt/qemu/{guest.name}.xml"
    iothreadpin = f"<iothreadpin iothread='1' cpuset='{','.join(map(str, pin))}'/>" if pin else ""
    text = status.read_text().replace("</cputune>", f"{iothreadpin}</cputune>")
    text = text.replace("<cputune>", "<iothreads>1</iothreads><cputune>")
    status.write_text(text.replace("<vcpus>", f"<vcpus><vcpu id='0' pid='{VCPU0}'/><vcpu id='1' pid='{VCPU1}'/>"))
    assert kinds(guest)[IOTHREAD] == kind
    done = run(guest, {2})
    assert guest.allowed(IOTHREAD) == cpuset.format(frozenset(pin or emulator)), "never off its own pin"
    assert guest.allowed(MAIN) == "2"
    for again in (done, run(guest, {2})):
        assert [each.excused for each in again.left] == ([True, True] if kind == "unknown" else [])


def test_old_kernels_vhost_workers_outside_the_process_are_moved_on_a_faked_kernel(tmp_path: Path) -> None:
    """Any process may call itself `vhost-PID`: a thread that is not the kernel's own is none."""
    guest = guest_of(tmp_path, "v2")
    guest.kill(VHOST)
    (tmp_path / f"proc/{MAIN}/fd/12").symlink_to("/dev/vhost-net")
    for tid, name in ((9001, f"vhost-{MAIN}"), (9002, "vhost-1"), (9003, f"vhost-{MAIN}")):
        guest.host.write(f"proc/{tid}/comm", f"{name}\n")
        guest.host.write(f"proc/{tid}/status", f"Name:\t{name}\nCpus_allowed_list:\t0-15\n")
        guest.host.write(f"proc/{tid}/cgroup", "0::/\n")
        flags = PF_KTHREAD if tid != 9003 else 0
        guest.host.write(f"proc/{tid}/stat", f"{tid} ({name}) S 2 0 0 0 -1 {flags | 0x40} 0\n")
    moved = []

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        if tid < 9000:
            guest.set_affinity(tid, cpus)
        else:
            moved.append((tid, cpus))
            guest.host.write(f"proc/{tid}/status", f"Name:\tvhost-{MAIN}\nCpus_allowed_list:\t2\n")

    enforce(str(tmp_path), read_status_file(str(tmp_path), guest.name), frozenset({2}), set_affinity)
    assert moved == [(9001, frozenset({2}))]


def test_a_thread_that_ends_meanwhile_is_no_error_on_a_faked_kernel(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "none")

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        if tid == VNC and VNC in guest.threads:
            guest.kill(VNC)
        guest.set_affinity(tid, cpus)

    enforce(str(tmp_path), read_status_file(str(tmp_path), guest.name), frozenset({2}), set_affinity)
    assert guest.allowed(RCU) == "2"


def test_a_thread_born_meanwhile_is_moved_too_on_a_faked_kernel(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "none")

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        guest.threads.setdefault(5000, FakeThread("vnc_worker", set(UNION), ""))
        guest.set_affinity(tid, cpus)

    enforce(str(tmp_path), read_status_file(str(tmp_path), guest.name), frozenset({2}), set_affinity)
    assert guest.allowed(5000) == "2"


def test_a_thread_that_cannot_be_moved_is_an_error_on_a_faked_kernel(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "none")
    guest.fails[VNC] = PermissionError(1, "Operation not permitted")
    done = run(guest, {2})
    assert [(each.thread.tid, each.excused) for each in done.left] == [(VNC, False)]
    assert {guest.allowed(tid) for tid in (MAIN, RCU, VHOST)} == {"2"}, "one thread stops no other"
    with pytest.raises(EnforceError, match=rf"vnc_worker \({VNC}\) stays on 2-5: Operation not permitted"):
        done.check("nfv-1", frozenset({2}))


@pytest.mark.parametrize("layout", ["v2", "none"])
def test_a_worker_that_the_kernel_lets_nobody_move_stops_no_guest_on_a_faked_kernel(
    tmp_path: Path, layout: str
) -> None:
    """Linux 5.12 to 6.2: io_uring workers have PF_NO_SETAFFINITY, and setting one is EINVAL. A cpuset takes them."""
    guest = guest_of(tmp_path, layout)
    guest.threads[5001] = FakeThread(f"iou-wrk-{MAIN}", set(UNION) | {9}, "" if layout == "none" else "emulator")
    guest.fails[5001] = OSError(22, "Invalid argument")
    guest.sync()
    guest.host.write(
        f"proc/{MAIN}/task/5001/stat", f"5001 (iou-wrk-{MAIN}) S 1 1 1 0 -1 {PF_NO_SETAFFINITY | 0x50} 0\n"
    )
    done = run(guest, {12} if layout == "v2" else {2})
    done.check("nfv-1", frozenset({2}))
    expected = [f"iou-wrk-{MAIN} (5001) stays on 2-5,9: the kernel lets nobody set the CPUs of this worker of its own"]
    assert [str(each)[: len(expected[0])] for each in done.left] == (expected if layout == "none" else [])
    assert guest.allowed(VNC) == ("12" if layout == "v2" else "2")


def test_a_thread_that_keeps_going_elsewhere_is_an_error_on_a_faked_kernel(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "none")
    root = str(tmp_path)
    done = enforce(root, read_status_file(root, guest.name), frozenset({2}), lambda *_: None)
    with pytest.raises(EnforceError, match=r"vnc_worker \(4270\) stays on 2-5: somebody else sets its affinity"):
        done.check("nfv-1", frozenset({2}))


def test_v2_takes_cpus_that_the_parent_lacks_and_that_is_an_error_on_a_faked_kernel(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "v2")
    effective = guest.group_folder("emulator") / "cpuset.cpus.effective"
    effective.unlink()
    effective.write_text("2-5\n")
    with pytest.raises(EnforceError, match="holds 12, effective are 2-5; a cgroup above the guest's has fewer CPUs"):
        run(guest, {12})


@pytest.mark.parametrize(
    ("layout", "machine"),
    [
        ("v1", r"/machine.slice/machine-qemu\x2d7\x2dnfv.scope"),
        ("v2", r"/machine.slice/machine-qemu\x2d7\x2dnfv.scope/libvirt"),
        ("v2", "/../machine.slice/docker-1.scope/machine/qemu-7-nfv.libvirt-qemu/libvirt"),
    ],
)
def test_layouts_of_systemd_and_machined_on_a_faked_kernel(tmp_path: Path, layout: str, machine: str) -> None:
    guest = guest_of(tmp_path, layout, machine)
    run(guest, {2})
    assert guest.allowed(RCU) == "2"


def test_a_mount_of_a_part_of_the_hierarchy_on_a_faked_kernel(tmp_path: Path) -> None:
    """Inside a container the mounted top may be a folder of the hierarchy (proc(5), mountinfo, field 4)."""
    guest = guest_of(tmp_path, "v2", "/docker/1/machine/qemu")
    guest.host.write("proc/self/mountinfo", "31 23 0:27 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "sys/fs/cgroup/machine").symlink_to(tmp_path / "sys/fs/cgroup/docker/1/machine")
    run(guest, {2})
    assert guest.allowed(RCU) == "2"


def test_a_stale_process_number_is_an_error(tmp_path: Path) -> None:
    guest = guest_of(tmp_path, "v1")
    check_process(str(tmp_path), guest.pid, UUID)
    with pytest.raises(HostError, match=r"/proc/1: is no longer there: the guest has ended"):
        check_process(str(tmp_path), 1, UUID)  # It died while libvirtd was down.
    guest.host.write(f"proc/{guest.pid}/cmdline", "/usr/bin/sleep\0infinity\0")
    with pytest.raises(HostError, match="is not the guest"):
        check_process(str(tmp_path), guest.pid, UUID)
