"""What a thread's counters did between two looks, by the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base.frozen import Frozen
from emupin.guest.threads import VCPU

if TYPE_CHECKING:
    from emupin.live.observe import Counters, Observed
    from emupin.live.survey import Survey


class Rates(Frozen):
    """None where one of the two looks did not say."""

    voluntary: float | None
    involuntary: float | None
    migrations: float | None
    run: float | None
    """The part of the time on a CPU; 1 is all of it."""
    wait: float | None
    """The part of the time ready to run, and not running."""


RatesByGuest = dict[int, dict[int, Rates]]
"""By process id, then by thread id."""


def between(before: Survey, after: Survey) -> RatesByGuest:
    """The rates of every thread that was there both times."""
    known = {each.assessment.live.status.pid: each for each in before.guests}
    return {
        pid: of_guest(known[pid], each)
        for each in after.guests
        if (pid := each.assessment.live.status.pid) in known and each.at > known[pid].at
    }


def of_guest(before: Observed, after: Observed) -> dict[int, Rates]:
    """By thread id, of every thread that was there both times."""
    seconds = after.at - before.at
    return {
        tid: _of_thread(before.counters[tid], counters, seconds)
        for tid, counters in after.counters.items()
        if tid in before.counters
    }


def _of_thread(before: Counters, after: Counters, seconds: float) -> Rates:
    def rate(old: int | None, new: int | None, unit: float = 1.0) -> float | None:
        return None if old is None or new is None else max(new - old, 0) / unit / seconds

    return Rates(
        rate(before.voluntary, after.voluntary),
        rate(before.involuntary, after.involuntary),
        rate(before.migrations, after.migrations),
        rate(before.run, after.run, 1e9),
        rate(before.wait, after.wait, 1e9),
    )


def preempted(observed: Observed, rates: dict[int, Rates]) -> list[tuple[int, int, float]]:
    """Thread id, index and rate of each vCPU from 1 up that was preempted meanwhile."""
    return [
        (thread.tid, thread.number, rate)
        for thread in observed.assessment.live.threads
        if thread.kind == VCPU and thread.number and thread.tid in rates and (rate := rates[thread.tid].involuntary)
    ]
