"""Traces as pictures of the page: what each vCPU lost, and how long the thefts were, before and after on one scale.

Only numbers are drawn here, in SVG attributes; texts are escaped by the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base.text import printable
from emupin.trace.account import LIMITS
from emupin.trace.result import add_up
from emupin.trace.verdict import duration, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emupin.trace.result import Sum, Theft, Trace, Vcpu

WIDTH, LABEL, ROOM = 560, 110, 230
"""Of a picture, its labels and its longest bar; behind the bar stands a text."""
ROW, HIGH = 22, 120
"""The height of a row, and of the tallest column."""
MOST = 40
"""vCPUs that have a bar."""


@dataclass(frozen=True)
class Bar:
    """What one vCPU lost; widths are parts of ROOM."""

    label: str
    ours: float
    others: float
    text: str


@dataclass(frozen=True)
class Column:
    """Thefts of one length; heights are parts of HIGH."""

    label: str
    ours: float
    others: float
    text: str


@dataclass(frozen=True)
class Picture:
    """One trace."""

    title: str
    about: str
    sentences: tuple[str, ...]
    bars: tuple[Bar, ...]
    quiet: int
    """vCPUs from which nobody took anything."""
    columns: tuple[Column, ...]


def pictures(traces: Sequence[Trace]) -> tuple[Picture, ...]:
    """In their order, all on the scale of the one that lost most."""
    most = max((trace.rate(add_up(vcpu.thefts).stolen) for trace in traces for vcpu in trace.vcpus), default=0.0)
    tallest = max((trace.rate(count) for trace in traces for count in add_up(_above(trace)).lengths), default=0.0)
    return tuple(_picture(trace, most or 1.0, tallest or 1.0) for trace in traces)


def _picture(trace: Trace, most: float, tallest: float) -> Picture:
    busy = sorted((vcpu for vcpu in trace.vcpus if vcpu.thefts), key=lambda vcpu: -add_up(vcpu.thefts).stolen)
    shown = sorted(busy[:MOST], key=lambda vcpu: vcpu.number)
    lost = f"; {trace.lost:,} events were lost" if trace.lost else ""
    return Picture(
        printable(trace.guest),
        f"{trace.made[:19]}Z, {trace.seconds:.0f} s, emulator threads on CPUs {trace.emulator or 'none'}{lost}",
        tuple(printable(each) for each in verdict(trace)),
        tuple(_bar(trace, vcpu, most) for vcpu in shown),
        len(trace.vcpus) - len(busy),
        tuple(_columns(trace, tallest)),
    )


def _bar(trace: Trace, vcpu: Vcpu, most: float) -> Bar:
    ours, others = _two(vcpu.thefts)
    everything = add_up(vcpu.thefts)
    text = f"{trace.rate(everything.count):,.1f}/s, {trace.rate(everything.stolen) * 1e3:,.2f} ms/s"
    return Bar(
        f"vCPU {vcpu.number} · {vcpu.allowed}",
        _part(trace.rate(ours.stolen), most),
        _part(trace.rate(others.stolen), most),
        f"{text}, ≤ {duration(everything.longest)}",
    )


def _columns(trace: Trace, tallest: float) -> Iterable[Column]:
    ours, others = _two(_above(trace))
    labels = [*(f"<{duration(limit / 1e9)}" for limit in LIMITS), "more"]
    for index, label in enumerate(labels):
        mine, theirs = (trace.rate(each.lengths[index]) if each.lengths else 0.0 for each in (ours, others))
        text = f"{label}: {mine:,.1f} a second by emulator threads, {theirs:,.1f} by others"
        yield Column(label, _part(mine, tallest), _part(theirs, tallest), text)


def _two(thefts: Iterable[Theft]) -> tuple[Sum, Sum]:
    """By emulator threads, and by others."""
    found = list(thefts)
    return add_up(each for each in found if each.is_emulator), add_up(each for each in found if not each.is_emulator)


def _above(trace: Trace) -> list[Theft]:
    return [each for vcpu in trace.vcpus if vcpu.number for each in vcpu.thefts]


def _part(value: float, most: float) -> float:
    return round(value / most, 4)
