"""What the hook adds where many guests start at once, by the clock: fifty paused guests, started by twenty clients.

Run on demand, as root: `python tests/bench/bench_starts.py [ROUNDS]`. The goal is 1.1 or less. Two real libvirtds in
namespaces of their own take turns, one of them without the hook. A guest that starts for the first time has its pin
recorded in libvirt's definitions meanwhile; one that starts again has it there already.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from real.cgroups import native_version  # noqa: E402
from real.expect import policy  # noqa: E402
from real.guests import CPUS, Guest  # noqa: E402
from real.host import PrivateHost, eventually  # noqa: E402

GUESTS, CLIENTS = 50, 20
NONE, FIRST, AGAIN = "without the hook", "first start, to be recorded", "started again"
PLACEMENT = f"cpus:{','.join(map(str, CPUS))}"
"""All of them: with the emulator threads of fifty guests on one CPU it is that CPU that would be measured."""
EACH = f"seq {GUESTS} | xargs -P {CLIENTS} -I@ virsh -q"


def main(rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory(prefix="emupin-bench-") as folder:
        bare = PrivateHost(Path(folder) / "a", "bench-a", native_version())
        hooked = PrivateHost(Path(folder) / "b", "bench-b", native_version())
        with bare, hooked:
            hooked.install(policy(PLACEMENT, checks="{foreign_overlap: 'off', vcpu_overlap: 'off', floating: 'off'}"))
            spent = measure(bare, hooked, rounds)
    base = statistics.median(spent[NONE])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"{name:28} {median:6.2f} s (from {min(seconds):.2f} s) {median / base:6.2f}")


def measure(bare: PrivateHost, hooked: PrivateHost, rounds: int) -> dict[str, list[float]]:
    """Seconds until the last of the guests has started, a round each."""
    spent: dict[str, list[float]] = {NONE: [], FIRST: [], AGAIN: []}
    for _ in range(rounds):
        define(bare)
        define(hooked)
        spent[NONE].append(start(bare))
        spent[FIRST].append(start(hooked))
        spent[AGAIN].append(start(hooked))
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
