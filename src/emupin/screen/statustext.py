"""A survey as text: a paragraph and a table of threads for each guest, what is out of line, and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.text import printable
from emupin.guest.threads import IOTHREAD, VCPU
from emupin.live.drift import CGROUP, DEFINED, THREAD, UNKNOWN, Assessment
from emupin.live.rates import preempted
from emupin.screen.table import table
from emupin.screen.terminal import BOLD, FAINT, GREEN, RED, YELLOW, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.threads import Thread
    from emupin.live.drift import Drift, Placed
    from emupin.live.observe import Counters, Observed
    from emupin.live.rates import Rates, RatesByGuest
    from emupin.live.survey import Survey
    from emupin.screen.table import Row

    Cpus = frozenset[int]

DRIFT, PREEMPTED = "!", ">"
"""Marks in front of a thread's row."""

HEADINGS = ("", "KIND", "TID", "NAME", "ALLOWED", "LAST", "VOL", "INVOL", "MIGR", "RUN", "WAIT")
FIGURES = (False, False, True, False, False, *[True] * 6)
RATE_HEADINGS = (*HEADINGS[:6], "VOL/s", "INVOL/s", "MIGR/s", "RUN%", "WAIT%")


def render(survey: Survey, rates: RatesByGuest | None, width: int, colour: bool) -> str:
    """`rates` None: the counters since each thread's birth. `width` 0: as wide as it gets."""
    blocks = []
    for each in survey.guests:
        mine = None if rates is None else rates.get(each.assessment.live.status.pid, {})
        blocks.append("".join(f"{line}\n" for line in _guest(each, mine, width, colour)))
    blocks.append(_summary(survey, colour))
    return "\n".join(blocks)


def _guest(observed: Observed, rates: dict[int, Rates] | None, width: int, colour: bool) -> Iterator[str]:
    found = observed.assessment
    pushed = {tid: (number, rate) for tid, number, rate in preempted(observed, rates or {})}
    yield from _title(found, width, colour)
    yield from table(
        HEADINGS if rates is None else RATE_HEADINGS,
        FIGURES,
        [_row(placed, observed.counters[placed.thread.tid], rates, pushed) for placed in found.threads],
        width,
        colour,
    )
    if found.problem:
        yield from _remark(DRIFT, f"no plan: {found.problem}", RED, width, colour)
    for said in _said(found):
        yield from _remark(DRIFT, said, RED, width, colour)
    for warning in found.plan.warnings:
        yield from _remark("-", warning, YELLOW, width, colour)
    for tid, (number, rate) in pushed.items():
        cpu = observed.counters[tid].cpu
        what = f"vCPU {number} ({tid}) is preempted: {_rate(rate)} involuntary switches a second, last on CPU {cpu}"
        yield from _remark(PREEMPTED, what, YELLOW, width, colour)


def _title(found: Assessment, width: int, colour: bool) -> Iterator[str]:
    status, plan = found.live.status, found.plan
    name = printable(found.guest.name)
    first, *rest = _wrapped(f"{name}  {found.guest.uuid}  pid {status.pid}  {status.state}", width, "  ")
    yield paint(first[: len(name)], BOLD, colour) + first[len(name) :]
    yield from rest
    if plan.cpus is None:
        says = "no plan" if plan.failed else printable(plan.reason)
    else:
        says = f"rule {plan.rule}, {plan.placement}: emulator threads on {cpuset.format(plan.cpus)}"
    yield from _wrapped(f"  plan   {printable(says)}", width, "         ")
    pins = [f"live XML {_pin(found.live_pin)}", f"persistent XML {_persistent(found)}"]
    group = found.live.group
    pins.append(f"cgroup {cpuset.format(group.effective)}" if group else "no cpuset cgroup")
    yield from _wrapped("  found  " + " · ".join(pins), width, "         ")


def _pin(pin: Cpus | None) -> str:
    return "none" if pin is None else cpuset.format(pin)


def _persistent(found: Assessment) -> str:
    if found.persistence == DEFINED:
        return _pin(found.persistent_pin)
    return "unknown" if found.persistence == UNKNOWN else "none (transient guest)"


# -- threads ----------------------------------------------------------------------------------------------------------


def _row(
    placed: Placed, counters: Counters, rates: dict[int, Rates] | None, pushed: dict[int, tuple[int, float]]
) -> Row:
    thread = placed.thread
    mark, code = (DRIFT, RED) if placed.strays else (PREEMPTED, YELLOW) if thread.tid in pushed else ("", "")
    last = "-" if counters.cpu is None else str(counters.cpu)
    figures = _totals(counters) if rates is None else _rates(rates.get(thread.tid))
    cells = (mark, kind(thread), str(thread.tid), printable(thread.name), cpuset.format(thread.allowed), last, *figures)
    return code, cells


def kind(thread: Thread) -> str:
    """`vCPU 3`, `iothread 1`, or the kind alone."""
    word = "vCPU" if thread.kind == VCPU else thread.kind
    return word if thread.number is None or thread.kind not in (VCPU, IOTHREAD) else f"{word} {thread.number}"


def _totals(counters: Counters) -> tuple[str, ...]:
    counts = (counters.voluntary, counters.involuntary, counters.migrations)
    return (*map(count, counts), duration(counters.run), duration(counters.wait))


def count(number: int | None) -> str:
    """At most five characters: `99999`, `1.2M`."""
    if number is None:
        return "-"
    if number < 100_000:
        return str(number)
    for unit, size in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if number < 1000 * size:
            return f"{number / size:.0f}{unit}" if number >= 10 * size else f"{number / size:.1f}{unit}"
    return f"{number / 10**12:.1f}T"


def duration(nanoseconds: int | None) -> str:
    """At most six characters: `12.34s`, `59m59s`, `23h59m`, `12d03h`."""
    if nanoseconds is None:
        return "-"
    seconds = nanoseconds / 1e9
    if seconds < 99.995:
        return f"{seconds:.2f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02}h"


def _rates(rates: Rates | None) -> tuple[str, ...]:
    if rates is None:
        return ("-",) * 5
    switches = (rates.voluntary, rates.involuntary, rates.migrations)
    return (
        *map(_rate, switches),
        *(("-" if part is None else f"{part * 100:.1f}") for part in (rates.run, rates.wait)),
    )


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.1f}" if rate < 100 else count(round(rate))


# -- what is out of line ----------------------------------------------------------------------------------------------


def _said(found: Assessment) -> Iterator[str]:
    """A sentence for all that has the same CPUs for the same cause."""
    groups: dict[tuple[Cpus | None, str], list[Drift]] = {}
    for drift in found.drifts:
        groups.setdefault((drift.found, drift.cause), []).append(drift)
    for (cpus, cause), drifts in groups.items():
        tids = [str(drift.tid) for drift in drifts if drift.where == THREAD]
        places = [f"thread{'s' if len(tids) > 1 else ''} {', '.join(tids)}"] if tids else []
        places += [drift.what if drift.where == CGROUP else f"{drift.where} {drift.what}"
                   for drift in drifts if drift.where != THREAD]  # fmt: skip
        on = "no pin" if cpus is None else f"on {cpuset.format(cpus)}"
        yield f"{on}, planned {_pin(drifts[0].expected)}: {'; '.join(places)}: {cause}"


def _remark(mark: str, text: str, code: str, width: int, colour: bool) -> Iterator[str]:
    first, *rest = _wrapped(f"{mark} {printable(text)}", width, "    ")
    yield paint(mark, code, colour) + first[len(mark) :]
    yield from rest


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    if not width or len(text) <= width:
        return [text]
    import textwrap

    return textwrap.wrap(text, max(width, 20), subsequent_indent=indent, break_on_hyphens=False)


def _summary(survey: Survey, colour: bool) -> str:
    counts = survey.counts
    if not counts["guests"]:
        return "no guest is running\n" if not counts["errors"] else ""
    total = f"{counts['guests']} guest{'' if counts['guests'] == 1 else 's'}"
    parts = [f"{counts['in_line']} in sync"]
    if counts["drift"]:
        parts.append(paint(f"{counts['drift']} drifted", RED, colour))
    if counts["unmanaged"]:
        parts.append(paint(f"{counts['unmanaged']} not managed by the policy", FAINT, colour))
    if counts["errors"]:
        parts.append(paint(f"{counts['errors']} error{'' if counts['errors'] == 1 else 's'}", RED, colour))
    if len(parts) == 1:
        parts[0] = paint(parts[0], GREEN, colour)
    return f"{total}: {', '.join(parts)}\n"
