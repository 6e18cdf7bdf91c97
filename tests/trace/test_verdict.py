"""The sentences that a trace comes to."""

from __future__ import annotations

import made_traces as made
import pytest

from emupin.trace import verdict
from emupin.trace.thieves import FOREIGN, KERNEL, PROCESS


def test_the_worst_vcpu_and_the_placement_that_would_help() -> None:
    found = made.trace(made.vcpu(1, made.theft("emulator", 370, 0.703)), made.vcpu(2, made.theft("emulator", 5, 0.01)))
    assert verdict.verdict(found) == (
        "vCPU 1 lost its CPU to this guest's emulator threads 37 times a second, 1.9 ms at the longest (and 1 other "
        "vCPU did, too): placement vcpu:0 would keep them off CPU 14.",
    )


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ("4", "placement vcpu:0 would keep them off CPU 14."),
        ("14", "vCPU 0 shares CPU 14: only a placement on other CPUs (dedicated, pool) would keep them off."),
        ("4,15", "a placement without CPU 14 would keep them off."),
    ],
)
def test_the_cure_fits_where_the_vcpus_are(first: str, says: str) -> None:
    vcpus = (made.vcpu(0, allowed=first), made.vcpu(1, made.theft("emulator", 370, 0.703)), made.vcpu(2))
    assert verdict.verdict(made.trace(*vcpus))[0].endswith(says)


def test_nothing_taken_is_said_for_as_long_as_was_looked() -> None:
    found = made.trace(made.vcpu(1), seconds=60.0)
    assert verdict.verdict(found) == ("No vCPU from 1 up lost its CPU to this guest's emulator threads in 60 s.",)
    shared = made.trace(made.vcpu(0, made.theft("emulator", 5, 0.1)), made.vcpu(1), seconds=60.0)
    assert verdict.verdict(shared)[0].endswith("in 60 s; vCPU 0 did, as it may.")


def test_lost_events_make_it_at_least() -> None:
    found = made.trace(made.vcpu(1, made.theft("emulator", 370, 0.703)), lost=3)
    assert "at least 37 times a second" in verdict.verdict(found)[0]
    quiet = made.trace(made.vcpu(1), lost=3)
    assert verdict.verdict(quiet) == (
        "No theft by this guest's emulator threads was seen, but 3 events were lost: trace again.",
    )


@pytest.mark.parametrize(
    ("whose", "kind", "more", "says"),
    [
        (KERNEL, "", {}, "threads of the kernel: isolation (isolcpus, irqaffinity) keeps most of them off"),
        (PROCESS, "", {"name": "sshd"}, "other processes of the host: isolation (isolcpus, cpuset) keeps them off"),
        (FOREIGN, "vcpu", {"guest": "web-1"}, "guest web-1: two guests share a CPU"),
        ("this guest", "iothread", {}, "this guest's own iothreads: `iothreads: follow` or an iothreadpin moves them"),
        ("this guest", "vcpu", {}, "this guest's own vCPUs"),
    ],
)  # fmt: skip
def test_others_are_said_with_what_keeps_them_off(whose: str, kind: str, more: dict[str, str], says: str) -> None:
    _, other = verdict.verdict(made.trace(made.vcpu(1, made.theft(kind, 100, 0.1, whose, **more))))
    assert other == f"vCPUs from 1 up lost their CPUs 10 times a second, 1.0 ms at the longest, to {says}."


def test_vhost_workers_are_named() -> None:
    found = made.trace(made.vcpu(1, made.theft("vhost", 100, 0.1)))
    assert "to this guest's vhost workers 10 times" in verdict.verdict(found)[0]


def test_before_and_after() -> None:
    before = made.trace(made.vcpu(1, made.theft("emulator", 370, 0.703)), made.vcpu(0, made.theft("emulator", 9, 0.9)))
    assert verdict.compare(before, made.trace(made.vcpu(1), seconds=60.0)) == (
        "CPUs of vCPUs from 1 up lost to this guest's emulator threads: 37.0 to 0.0 a second; time 70.30 to 0.00 ms a "
        "second; the longest 1.9 ms to none.",
        "CPUs of vCPUs from 1 up lost to anybody else: 0.0 to 0.0 a second; time 0.00 to 0.00 ms a second; the longest "
        "none to none.",
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.34, "2.3 s"), (0.0019, "1.9 ms"), (0.0123, "12 ms"), (4.2e-6, "4.2 µs"), (8e-7, "800 ns")]
)
def test_durations(seconds: float, text: str) -> None:
    assert verdict.duration(seconds) == text


@pytest.mark.parametrize(
    ("times", "text"),
    [(1234.0, "1,234 times a second"), (3.25, "3.2 times a second"), (0.1, "6 times a minute"), (0.01, "once")],
)
def test_rates(times: float, text: str) -> None:
    assert verdict.rate(times) == text
