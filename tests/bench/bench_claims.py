"""How a decision's cost grows with the host: with its running guests, and with its CPUs.

Run on demand: `python tests/bench/bench_claims.py [ROUNDS]`. All are calls of `prepare begin`, as whole processes, in
turns on one CPU. The goals: with 1,000 guests running 1.5 times what it costs with one, or less, once the ledger knows
them; on a host with 1,024 CPUs twice what it costs on one with two, or less, with and without a cached topology.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench_hook import HOOK, NAME, ROOT, SAMPLE, WARMING, compile_library, make_root, medians, spend

STATUS = ROOT / "fixtures" / "xml" / "status" / "libvirt-9.0.xml"
PREPARE = [HOOK, NAME, "prepare", "begin", "-"]
CPU = "sys/devices/system/cpu"


def machine(cpus: int) -> dict[str, str]:
    """The kernel files of a host with two threads a core, and from 64 CPUs on a cache for 16 and a node for 256."""
    files = {f"{CPU}/online": f"0-{cpus - 1}\n", f"{CPU}/isolated": "\n", f"{CPU}/smt/active": "1\n"}
    nodes = max(cpus // 256, 1)
    files["sys/devices/system/node/online"] = f"0-{nodes - 1}\n"
    for node in range(nodes):
        first = node * cpus // nodes
        files[f"sys/devices/system/node/node{node}/cpulist"] = f"{first}-{first + cpus // nodes - 1}\n"
    for cpu in range(cpus):
        files[f"{CPU}/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu & ~1}-{cpu | 1}\n"
        sharing = min(16, cpus)
        files[f"{CPU}/cpu{cpu}/cache/index3/level"] = "3\n"
        files[f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list"] = f"{cpu // sharing * sharing}-{cpu | sharing - 1}\n"
    return files


def running(guests: int, cpus: int) -> dict[str, str]:
    """libvirt's status files of `guests`, each with two vCPUs pinned and its emulator threads beside them."""
    text = STATUS.read_text()
    name, uuid = (text.partition(f"<{tag}>")[2].partition("<")[0] for tag in ("name", "uuid"))
    files = {}
    for number in range(guests):
        first = 16 + number * 2 % (cpus - 16)
        own = text.replace(name, f"guest-{number}").replace(uuid, f"00000000-0000-4000-8000-{number:012x}")
        for before, after in (
            ("vcpu='0' cpuset='0'", f"vcpu='0' cpuset='{first}'"),
            ("vcpu='1' cpuset='1'", f"vcpu='1' cpuset='{first + 1}'"),
            ("<emulatorpin cpuset='0-1'", f"<emulatorpin cpuset='{first}-{first + 1}'"),
        ):
            own = own.replace(before, after)
        files[f"run/libvirt/qemu/guest-{number}.xml"] = own
    return files


def main(rounds: int = 30) -> None:
    compile_library()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder = Path(tempfile.mkdtemp(prefix="emupin-bench-"))
    small = folder / "small.xml"
    small.write_text(SAMPLE.read_text().replace("vcpu='0' cpuset='12'", "vcpu='0' cpuset='1'"))
    cases = {
        "1 guest": (make_root(folder / "one", {**machine(128), **running(1, 128)}), False),
        "1,000 guests": (make_root(folder / "many", {**machine(128), **running(1000, 128)}), False),
        "2 CPUs": (make_root(folder / "two", machine(2)), False),
        "1,024 CPUs": (make_root(folder / "thousand", machine(1024)), False),
        "2 CPUs, cold": (make_root(folder / "two-cold", machine(2)), True),
        "1,024 CPUs, cold": (make_root(folder / "thousand-cold", machine(1024)), True),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    try:
        for _ in range(rounds + WARMING):
            for name, (root, cold) in cases.items():
                if cold:
                    (root / "run/emupin/topology").unlink(missing_ok=True)
                spent[name].append(spend(PREPARE, root, small))
    finally:
        shutil.rmtree(folder)
    report({name: medians(values[WARMING:]) for name, values in spent.items()})


def report(figures: dict[str, tuple[float, float]]) -> None:
    print(f"{'prepare begin':20}processor      until the end")
    for name, (processor, total) in figures.items():
        print(f"{name:20}{processor:8.2f} ms{total:11.2f} ms")
    names = list(figures)
    for base, name in zip(names[::2], names[1::2]):
        processor, total = (mine / other for mine, other in zip(figures[name], figures[base]))
        print(f"{name:20}{processor:8.2f}{total:14.2f}     times {base}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
