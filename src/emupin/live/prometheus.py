"""A survey in Prometheus' text exposition format, for node_exporter's textfile collector.

No label names a thread or a process: those change with each start, and a series for each would be kept for ever.
Counters are of threads that live as long as their guest or device. A sum over block workers, which come and go, would
fall when one ends, and be taken for a counter that began anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.guest.threads import IOTHREAD, VCPU, VHOST
from emupin.live.drift import CGROUP, LIVE, PERSISTENT, THREAD
from emupin.live.observe import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.guest.threads import Thread
    from emupin.live.observe import Counters, Observed
    from emupin.live.survey import Survey

MODE = 0o644
"""A collector need not be root."""

COUNTERS: tuple[tuple[str, str, Callable[[Counters], float | None]], ...] = (
    ("voluntary_switches_total", "Voluntary context switches", lambda each: each.voluntary),
    ("involuntary_switches_total", "Involuntary context switches", lambda each: each.involuntary),
    ("migrations_total", "Moves from one CPU to another", lambda each: each.migrations),
    ("run_seconds_total", "Time on a CPU", lambda each: None if each.run is None else each.run / 1e9),
    ("wait_seconds_total", "Time ready to run, and not running",
     lambda each: None if each.wait is None else each.wait / 1e9),
)  # fmt: skip

LASTING = {
    "main_loop": "QEMU's main loop",
    IOTHREAD: "an iothread",
    VHOST: "the vhost workers together",
    VCPU: "a vCPU",
}
"""Whose counters are exported, by the word in a metric's name."""


def render(survey: Survey) -> bytes:
    """All metrics; a label's value that is not UTF-8 has `?` for what is not."""
    lines = [*_totals(survey), *_guests(survey), *_kinds(survey), *_counters(survey)]
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


def _kinds(survey: Survey) -> Iterator[str]:
    """How many threads of each kind there are, and how many of them are not where they belong."""
    totals: dict[str, int] = {}
    strays: dict[str, int] = {}
    for guest in survey.guests:
        for kind in KINDS:
            placed = [each for each in guest.assessment.threads if each.thread.kind == kind]
            labels = _guest(guest) + _labels(kind=kind)
            totals[labels], strays[labels] = len(placed), sum(each.strays for each in placed)
    yield from _family("emupin_threads", "gauge", "Threads of a kind.", totals)
    yield from _family("emupin_threads_drifted", "gauge", "Threads that may run on other CPUs than planned.", strays)


def _counters(survey: Survey) -> Iterator[str]:
    threads = [
        (which, _guest(guest) + _labels(**numbered), guest.counters[thread.tid])
        for guest in survey.guests
        for thread in guest.assessment.live.threads
        for which, numbered in _lasting(thread, guest.assessment.live.status.pid)
    ]
    for word, whose in LASTING.items():
        for name, text, value in COUNTERS:
            sums: dict[str, float] = {}
            for which, labels, counters in threads:
                if which == word and (number := value(counters)) is not None:
                    sums[labels] = sums.get(labels, 0) + number
            yield from _family(f"emupin_{word}_{name}", "counter", f"{text}, of {whose}.", sums)


def _lasting(thread: Thread, pid: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The word of LASTING for `thread` and the label that tells it from its like; nothing for other threads."""
    if thread.tid == pid:
        yield "main_loop", {}
    elif thread.kind == VHOST:
        yield VHOST, {}
    elif thread.kind in (VCPU, IOTHREAD) and thread.number is not None:
        yield thread.kind, {thread.kind: str(thread.number)}


def _family(name: str, kind: str, text: str, samples: dict[str, float] | dict[str, int]) -> Iterator[str]:
    """A metric with its head; `samples` by their labels."""
    yield from _head(name, kind, text)
    for labels, value in samples.items():
        yield _sample(name, labels, value)


def _guest(observed: Observed) -> str:
    guest = observed.assessment.guest
    return _labels(guest=guest.name, uuid=guest.uuid or "")


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def _labels(**texts: str) -> str:
    """Each with a comma behind it, the last one too: that is allowed, and more can be put behind."""
    return "".join([f'{label}="{_escape(text)}",' for label, text in texts.items()])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
