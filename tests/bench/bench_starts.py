"""What the hook adds where many guests start at once, by the clock: fifty paused guests, started by twenty clients.

Run on demand, as root: `python tests/bench/bench_starts.py [ROUNDS]`. Three real libvirtds in namespaces of their own
take turns, and another one begins each round: one has no hook, one an empty shell script for a hook, one ours. libvirt
itself pays for any hook: it prints the domain XML, forks and waits, three times for each start. So the goal, 1.1 or
less, is for what is ours: against the empty script. A guest that starts for the first time has its pin recorded in
libvirt's definitions meanwhile; one that starts again has it there already.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from real.cgroups import native_version  # noqa: E402
from real.expect import policy  # noqa: E402
from real.guests import CPUS, Guest  # noqa: E402
from real.host import PrivateHost, eventually  # noqa: E402

GUESTS, CLIENTS = 50, 20
NONE, EMPTY, FIRST, AGAIN = "no hook", "an empty hook", "first start, to be recorded", "started again"
PLACEMENT = f"cpus:{','.join(map(str, CPUS))}"
"""All of them: with the emulator threads of fifty guests on one CPU it is that CPU that would be measured."""
CHECKS = "{foreign_overlap: 'off', vcpu_overlap: 'off', floating: 'off'}"
EACH = f"seq {GUESTS} | xargs -P {CLIENTS} -I@ virsh -q"


def main(rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as folder, ExitStack() as stack:
        bare, empty, ours = (
            stack.enter_context(PrivateHost(Path(folder) / name, f"bench-{name}", native_version())) for name in "abc"
        )
        empty.write("/etc/libvirt/hooks/qemu", "#!/bin/sh\n", 0o755)
        empty.restart_libvirtd()
        ours.install(policy(PLACEMENT, checks=CHECKS))
        spent = measure([(bare, (NONE,)), (empty, (EMPTY,)), (ours, (FIRST, AGAIN))], rounds)
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    for name, seconds in spent.items():
        ratios = f"{medians[name] / medians[NONE]:6.2f} {medians[name] / medians[EMPTY]:6.2f}"
        print(f"{name:28} {medians[name]:6.2f} s (from {min(seconds):.2f} s) {ratios}")
    print("times no hook, times an empty one")


def measure(hosts: list[tuple[PrivateHost, tuple[str, ...]]], rounds: int) -> dict[str, list[float]]:
    """Seconds until the last of the guests has started, a round each, by what is measured on which host."""
    spent: dict[str, list[float]] = {name: [] for _, names in hosts for name in names}
    for _ in range(rounds):
        for host, _ in hosts:
            define(host)
        for host, names in hosts:
            for name in names:
                spent[name].append(start(host))
        hosts = [*hosts[1:], hosts[0]]
    return spent


def define(host: PrivateHost) -> None:
    """Anew, without the pin that was recorded."""
    for number in range(1, GUESTS + 1):
        identity = f"00000000-0000-0000-0000-{number:012}"
        host.write("/run/guest.xml", Guest(f"nfv-{number}", vcpus=1, emulatorpin=None, uuid=identity).xml)
        host.virsh("define", "/run/guest.xml")


def start(host: PrivateHost) -> float:
    begun = time.perf_counter()
    host.run("sh", "-c", f"{EACH} start --paused nfv-@")
    spent = time.perf_counter() - begun
    if not eventually(
        lambda: not host.path("/run/emupin/orders").exists() or not any(host.path("/run/emupin/orders").iterdir())
    ):
        raise SystemExit("the pins are not recorded")
    host.run("sh", "-c", f"{EACH} destroy nfv-@")
    return spent


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
