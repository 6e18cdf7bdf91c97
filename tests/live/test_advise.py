"""`emupin advise`: the words that figures give, the figures that looks give, and the command on a pretended kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_traces as made
import pytest
from command import emupin
from guests import Machine, many
from hosts import Host

from emupin.commands.advise import sample, tenants
from emupin.guest.threads import EMULATOR, VCPU, VHOST
from emupin.live import observe
from emupin.live.advice import DEDICATED, FIRST_VCPU, NONE, POOL, advise
from emupin.live.loads import Load, Samples, measure, total


def load(kind: str, run: float | None, wait: float | None = 0.0, number: int | None = None, cpu: int = 2) -> Load:
    tid = {EMULATOR: 10, VHOST: 20, VCPU: 30}.get(kind, 40) + (number or 0)
    return Load(tid, f"{kind}-{tid}", kind, number, frozenset({cpu}), cpu, run, wait, 0.0)


def samples(run: float, wait: float = 0.0, vhost: float = 0.0, seconds: float = 60, **more: Any) -> Samples:
    """A busy guest with two vCPUs, on whose vCPU 0 the emulator runs."""
    loads = (
        load(EMULATOR, run, wait),
        load(VHOST, vhost),
        load(VCPU, 0.9, number=0),
        load(VCPU, 0.9, number=1, cpu=3),
    )
    return replace(Samples(seconds, loads, tenants={2: ("vCPU 0",)}), **more)


@pytest.mark.parametrize(
    ("run", "vhost", "wait", "expected"),
    [
        (0.0, 0.0, 0.0, FIRST_VCPU),
        (0.04, 0.0, 0.0, FIRST_VCPU),
        (0.03, 0.02, 0.0, POOL),
        (0.05, 0.0, 0.0, POOL),
        (0.1, 0.19, 0.0, POOL),
        (0.1, 0.21, 0.0, DEDICATED),
        (0.02, 0.0, 0.06, DEDICATED),
        (1.4, 0.0, 0.0, DEDICATED),
    ],
)
def test_thresholds(run: float, vhost: float, wait: float, expected: str) -> None:
    told = advise(samples(run, wait, vhost))
    assert told.placement == expected
    assert told.grounds[0].startswith(f"emulator threads and vhost workers ran {run + vhost:.1%} of a CPU")
    assert told.grounds[1] == f"they waited {wait:.1%} of the time for a CPU, all threads added up"
    assert ("dedicated:2" in told.summary) == (run > 1)


def test_a_burst_counts_more_than_the_mean() -> None:
    told = advise(samples(0.02, busiest=0.31, slice_seconds=5.0))
    assert told.placement == DEDICATED
    assert ", 31.0% in the busiest 5.0 s" in told.grounds[0]


def test_waiting_where_nobody_shares_argues_for_nothing() -> None:
    told = advise(samples(0.02, 0.2, tenants={2: ()}))
    assert told.placement == FIRST_VCPU
    assert "no guest is known to have CPU 2, too" in told.grounds


@pytest.mark.parametrize(("run", "expected"), [(0.5, NONE), (0.01, NONE)])
def test_a_short_window_advises_nothing(run: float, expected: str) -> None:
    told = advise(samples(run, seconds=9.0))
    assert (told.placement, told.summary) == (
        expected, "Nothing is advised: 9 s is too short, measure for 10 s at least.",
    )  # fmt: skip
    assert told.grounds


def test_an_idle_guest_advises_nothing() -> None:
    idle = tuple(load(VCPU, 0.002, number=number, cpu=2 + number) for number in range(2))
    told = advise(Samples(60, (load(EMULATOR, 0.001), *idle)))
    assert (told.placement, "the guest was idle" in told.summary) == (NONE, True)
    busy = advise(Samples(60, (load(EMULATOR, 0.4), *idle)))
    assert busy.placement == DEDICATED, "what was measured is a load, whoever makes it"


def test_an_idle_guest_that_waited_for_processes_of_the_host_advises_nothing() -> None:
    """As seen: the emulator ran 0.1 % and waited 6.9 %, on the CPU of a vCPU 0 that slept."""
    idle = tuple(load(VCPU, 0.002, number=number, cpu=2 + number) for number in range(2))
    told = advise(Samples(60, (load(EMULATOR, 0.001, 0.069), *idle), tenants={2: ("vCPU 0",)}))
    assert (told.placement, "the guest was idle" in told.summary) == (NONE, True)


@pytest.mark.parametrize(
    ("tenants", "run", "expected"),
    [(("vCPU 0",), 0.01, FIRST_VCPU), (("vCPU 0",), 0.3, DEDICATED), (("web-1's vCPUs",), 0.01, DEDICATED)],
)
def test_waiting_argues_for_a_cpu_only_where_a_guest_can_be_why(
    tenants: tuple[str, ...], run: float, expected: str
) -> None:
    loads = (load(EMULATOR, 0.01, 0.2), load(VCPU, run, number=0), load(VCPU, 0.9, number=1, cpu=3))
    assert advise(Samples(60, loads, tenants={2: tenants})).placement == expected


def test_a_trace_says_who_took_the_cpus() -> None:
    told = advise(replace(samples(0.01), trace=made.trace(made.vcpu(1, made.theft("emulator", 370, 0.5)))))
    (ground,) = (each for each in told.grounds if each.startswith("vCPU 1 lost its CPU"))
    assert "to this guest's emulator threads 37 times a second, 1.4 ms at the longest: placement vcpu:0" in ground
    assert not any("involuntary" in limit for limit in told.limits)


def test_a_kernel_that_does_not_count_gets_no_figures() -> None:
    told = advise(Samples(60, (load(EMULATOR, None, None), load(VCPU, None, None, 0))))
    assert (told.placement, told.grounds) == (NONE, ())
    assert "counts no run time" in told.summary


def test_preempted_vcpus_and_limits_are_told() -> None:
    pushed = Load(31, "CPU 1/KVM", VCPU, 1, frozenset({2}), 2, 0.9, 0.0, 12.0)
    told = advise(Samples(60, (load(EMULATOR, 0.01), pushed), transient=2))
    assert "vCPU 1 was preempted 12.0 times a second" in told.grounds
    assert "emulator threads may run on the CPU of vCPU 1: no placement should allow that" in told.grounds
    assert any(limit.startswith("there was no vhost worker") for limit in told.limits)
    assert "2 threads came or went meanwhile and are not in the figures" in told.limits


def test_figures_of_three_looks(tmp_path: Path) -> None:
    host = Host(tmp_path)
    machine = Machine(host)
    looks = []
    for second, run in enumerate((0, 100_000_000, 900_000_000)):
        machine.tasks[0].run, machine.tasks[0].wait = run, second * 50_000_000
        machine.tasks[5].involuntary = 10 + 20 * second
        machine.write()
        seen = observe.observe(str(tmp_path), "nfv-1", None, None)
        looks.append(observe.Observed(seen.assessment, seen.counters, 100.0 + second))
    found = measure(looks, tenants(str(tmp_path), looks[-1]))
    assert (found.seconds, found.busiest, found.slice_seconds, found.transient) == (2.0, 0.8, 1.0, 0)
    by_tid = {each.tid: each for each in found.loads}
    assert (by_tid[4242].run, by_tid[4242].wait, by_tid[4247].involuntary) == (0.45, 0.05, 20.0)
    assert total([each for each in found.loads if each.ours], "run") == 0.45
    assert found.tenants == {2: ("vCPU 0",)}


def test_other_guests_are_named(tmp_path: Path) -> None:
    many(tmp_path, 2)
    seen = observe.observe(str(tmp_path), "nfv-000", None, None)
    assert tenants(str(tmp_path), seen) == {0: ("vCPU 0",)}
    group = tmp_path / "proc/10000/task/10000/status"
    group.write_text(group.read_text().replace("Cpus_allowed_list:\t0\n", "Cpus_allowed_list:\t0,4,6\n"))
    seen = observe.observe(str(tmp_path), "nfv-000", None, None)
    assert tenants(str(tmp_path), seen) == {
        0: ("vCPU 0",), 4: ("nfv-001's vCPUs", "nfv-001's emulator"), 6: ("nfv-001's vCPUs",)
    }  # fmt: skip


def test_sampling_stops_at_the_end_of_the_window(tmp_path: Path) -> None:
    Machine(Host(tmp_path))
    looks, trace, why = sample(str(tmp_path), "nfv-1", 1.2)
    assert (trace, "proc/self/ns/pid: cannot be used" in why) == (None, True)
    assert len(looks) == 3
    assert 1.2 <= looks[-1].at - looks[0].at < 2.5


def test_the_command(tmp_path: Path) -> None:
    Machine(Host(tmp_path))
    done = emupin(tmp_path, "advise", "nfv-1", "--for", "1s", "--json")
    assert (done.returncode, done.stderr.startswith(b"without a trace: ")) == (0, True)
    told = json.loads(done.stdout)
    assert (told["name"], told["placement"]) == ("nfv-1", "none")
    assert told["measured"]["tenants"] == {"2": ["vCPU 0"]}
    wrong = emupin(tmp_path, "advise", "nfv-1", "--for", "0")
    assert wrong.returncode == 2
    assert b"not a time from 1s to 24h" in wrong.stderr
    assert emupin(tmp_path, "advise", "nfv-9").returncode == 2
