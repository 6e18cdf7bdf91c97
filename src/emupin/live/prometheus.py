"""A survey in Prometheus' text exposition format, for node_exporter's textfile collector."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base.errors import HostError
from emupin.base.files import write_all
from emupin.guest.threads import VCPU
from emupin.live.drift import CGROUP, LIVE, PERSISTENT, THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.live.drift import Placed
    from emupin.live.observe import Counters, Observed
    from emupin.live.survey import Survey

MODE = 0o644

COUNTERS: tuple[tuple[str, str, Callable[[Counters], float | None]], ...] = (
    ("voluntary_switches_total", "Voluntary context switches.", lambda each: each.voluntary),
    ("involuntary_switches_total", "Involuntary context switches.", lambda each: each.involuntary),
    ("migrations_total", "Moves from one CPU to another.", lambda each: each.migrations),
    ("run_seconds_total", "Time on a CPU.", lambda each: None if each.run is None else each.run / 1e9),
    ("wait_seconds_total", "Time ready to run, and not running.",
     lambda each: None if each.wait is None else each.wait / 1e9),
)  # fmt: skip


VCPU_COUNTERS = tuple(each for each in COUNTERS if each[0] in ("involuntary_switches_total", "wait_seconds_total"))
"""What shows on a fleet's dashboards when emulator threads stop to take vCPUs' CPUs; without ids that change."""


def render(survey: Survey) -> bytes:
    """All metrics; a label's value that is not UTF-8 has `?` for what is not."""
    lines = [*_totals(survey), *_guests(survey), *_vcpus(survey), *_threads(survey)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _totals(survey: Survey) -> Iterator[str]:
    yield from _head("emupin_guests", "gauge", "Running guests that were looked at.")
    yield _sample("emupin_guests", "", survey.counts["guests"])
    yield from _head("emupin_status_errors", "gauge", "Guests and files that could not be looked at.")
    yield _sample("emupin_status_errors", "", survey.counts["errors"])


def _guests(survey: Survey) -> Iterator[str]:
    yield from _head("emupin_guest_info", "gauge", "The rule that takes a guest, and the placement.")
    for each in survey.guests:
        plan = each.assessment.plan
        labels = _guest(each) + _labels(rule=plan.rule or "", placement=plan.placement or "")
        yield _sample("emupin_guest_info", labels, 1)
    yield from _head("emupin_guest_in_line", "gauge", "1 if everything is as planned.")
    for each in survey.guests:
        yield _sample("emupin_guest_in_line", _guest(each), int(each.assessment.in_line))
    yield from _head("emupin_guest_drifts", "gauge", "Deviations from the plan.")
    for each in survey.guests:
        places = [drift.where for drift in each.assessment.drifts]
        for where in (THREAD, CGROUP, LIVE, PERSISTENT):
            yield _sample("emupin_guest_drifts", _guest(each) + _labels(where=where), places.count(where))


def _vcpus(survey: Survey) -> Iterator[str]:
    vcpus = [
        (_guest(guest) + _labels(vcpu=str(thread.number)), guest.counters[thread.tid])
        for guest in survey.guests
        for thread in guest.assessment.live.threads
        if thread.kind == VCPU and thread.number is not None
    ]
    for name, text, value in VCPU_COUNTERS:
        yield from _head(f"emupin_vcpu_{name}", "counter", f"{text[:-1]}, of a vCPU's thread.")
        for labels, counters in vcpus:
            number = value(counters)
            if number is not None:
                yield _sample(f"emupin_vcpu_{name}", labels, number)


def _threads(survey: Survey) -> Iterator[str]:
    threads = [(labels + _thread(placed), placed, guest.counters[placed.thread.tid])
               for guest in survey.guests for labels in (_guest(guest),)
               for placed in guest.assessment.threads]  # fmt: skip
    yield from _head("emupin_thread_drift", "gauge", "1 where a thread may run on other CPUs than planned.")
    for labels, placed, _ in threads:
        yield _sample("emupin_thread_drift", labels, int(placed.strays))
    yield from _head("emupin_thread_last_cpu", "gauge", "The CPU that a thread runs on, or ran on last.")
    for labels, _, counters in threads:
        if counters.cpu is not None:
            yield _sample("emupin_thread_last_cpu", labels, counters.cpu)
    for name, text, value in COUNTERS:
        yield from _head(f"emupin_thread_{name}", "counter", text)
        for labels, _, counters in threads:
            number = value(counters)
            if number is not None:
                yield _sample(f"emupin_thread_{name}", labels, number)


def _guest(observed: Observed) -> str:
    guest = observed.assessment.guest
    return _labels(guest=guest.name, uuid=guest.uuid or "")


def _thread(placed: Placed) -> str:
    thread = placed.thread
    number = "" if thread.number is None else str(thread.number)
    return _labels(kind=thread.kind, number=number, thread=thread.name, tid=str(thread.tid))


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def _labels(**texts: str) -> str:
    """Each with a comma behind it, the last one too: that is allowed, and more can be put behind."""
    return "".join([f'{label}="{_escape(text)}",' for label, text in texts.items()])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(path: str, data: bytes) -> None:
    """Make the file `path` hold `data`, in one step: a collector never sees half of it. Raises HostError."""
    temporary = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, MODE)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(path, f"cannot be written: {error.strerror}", "name another file with -o") from None
