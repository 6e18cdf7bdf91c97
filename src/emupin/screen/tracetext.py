"""A trace as text: the verdict, a table of thieves, one of waits, and a histogram of the thefts' lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.text import printable
from emupin.screen.table import table
from emupin.screen.terminal import BOLD, FAINT, RED, YELLOW, paint
from emupin.trace.account import LIMITS
from emupin.trace.result import add_up
from emupin.trace.thieves import FOREIGN, OWN
from emupin.trace.verdict import compare, duration, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.screen.table import Row
    from emupin.trace.result import Theft, Trace, Vcpu, Waits
    from emupin.trace.thieves import Thief

HEADINGS = ("VCPU", "CPUS", "TAKEN BY", "NAME", "TIMES/s", "ms/s", "LONGEST")
FIGURES = (True, False, False, False, True, True, True)
WAIT_HEADINGS = ("VCPU", "CPUS", "PUSHED/s", "MEAN", "LONGEST", "WOKEN/s", "MEAN", "LONGEST", "WAIT%")
WAIT_FIGURES = (True, False, *[True] * 7)
CHANGE_HEADINGS = ("VCPU", "TAKEN BY", "TIMES/s", "", "ms/s", "", "LONGEST", "")
CHANGE_FIGURES = (True, False, *[True] * 6)
MOST = 5
"""Thieves of one vCPU that get a row each."""
BAR = 40
OURS, OTHERS = "█", "░"


def render(trace: Trace, before: Trace | None, width: int, colour: bool) -> str:
    """`width` 0: as wide as it gets."""
    lines = [*_title(trace, colour), "", *_thefts(trace, width, colour), *_waits(trace, width, colour)]
    lines += [*_histogram(trace, width, colour)]
    if before is not None:
        lines += ["", *_comparison(before, trace, width, colour)]
    lines += ["", *(_wrapped(sentence, width) for sentence in verdict(trace))]
    return "".join(f"{line}\n" for line in lines)


def _title(trace: Trace, colour: bool) -> Iterator[str]:
    name = paint(printable(trace.guest), BOLD, colour)
    yield f"{name}  {trace.uuid}"
    yield f"  traced for {trace.seconds:.1f} s; emulator threads may run on {trace.emulator or 'no CPU'}"
    if trace.lost:
        yield paint(f"  {trace.lost:,} events were lost: all figures are too low", RED, colour)
    if trace.holes:
        what = (
            f"{trace.holes:,} times the kernel recorded nothing on a CPU for a while: what happened then is not counted"
        )
        yield paint(f"  {what}", YELLOW, colour)
    for remark in trace.remarks:
        yield paint(f"  {printable(remark)}", YELLOW, colour)


def _thefts(trace: Trace, width: int, colour: bool) -> Iterator[str]:
    rows = [row for vcpu in trace.vcpus for row in _rows(trace, vcpu)]
    if rows:
        yield from table(HEADINGS, FIGURES, rows, width, colour)
    quiet = [vcpu.number for vcpu in trace.vcpus if not vcpu.thefts]
    if quiet:
        yield f"nobody took the CPU{'s' * (len(quiet) > 1)} of vCPU{'s' * (len(quiet) > 1)} {cpuset.format(quiet)}"


def _rows(trace: Trace, vcpu: Vcpu) -> Iterator[Row]:
    shown = vcpu.thefts if len(vcpu.thefts) <= MOST + 1 else vcpu.thefts[:MOST]
    first = (str(vcpu.number), vcpu.allowed)
    for each in shown:
        figures = _figures(trace, each.count, each.stolen, each.longest)
        yield _code(vcpu, each), (*first, _whose(each.thief), printable(each.thief.name), *figures)
        first = ("", "")
    rest = vcpu.thefts[len(shown) :]
    if rest:
        found = add_up(rest)
        figures = _figures(trace, found.count, found.stolen, found.longest)
        yield FAINT, (*first, f"{len(rest)} others", "", *figures)


def _code(vcpu: Vcpu, theft: Theft) -> str:
    """Red where a placement is at fault: vCPU 0 may share its CPU."""
    return RED if theft.is_emulator and vcpu.number else ""


def _figures(trace: Trace, count: int, stolen: float, longest: float) -> tuple[str, str, str]:
    return f"{trace.rate(count):,.1f}", f"{trace.rate(stolen) * 1e3:,.2f}", duration(longest) if count else "-"


def _whose(thief: Thief) -> str:
    """`emulator`, `iothread 1`, `kernel`, `web-2: vCPU 3`."""
    if thief.whose not in (OWN, FOREIGN):
        return thief.whose
    word = "vCPU" if thief.kind == "vcpu" else thief.kind
    text = word if thief.number is None else f"{word} {thief.number}"
    return f"{printable(thief.guest)}: {text}" if thief.whose == FOREIGN else text


def _waits(trace: Trace, width: int, colour: bool) -> Iterator[str]:
    rows = [
        (
            "",
            (
                str(vcpu.number),
                vcpu.allowed,
                *_wait(trace, vcpu.gaps),
                *_wait(trace, vcpu.delays),
                "-" if vcpu.wait is None else f"{vcpu.wait * 100:.1f}",
            ),
        )
        for vcpu in trace.vcpus
        if vcpu.gaps.count or vcpu.delays.count
    ]
    if rows:
        yield ""
        yield from table(WAIT_HEADINGS, WAIT_FIGURES, rows, width, colour)


def _wait(trace: Trace, waits: Waits) -> tuple[str, str, str]:
    if not waits.count:
        return "0", "-", "-"
    return f"{trace.rate(waits.count):,.1f}", duration(waits.mean), duration(waits.longest)


def _histogram(trace: Trace, width: int, colour: bool) -> Iterator[str]:
    thefts = [each for vcpu in trace.vcpus if vcpu.number for each in vcpu.thefts]
    if not thefts:
        return
    ours = add_up(each for each in thefts if each.is_emulator).lengths or (0,) * (len(LIMITS) + 1)
    everybody = add_up(thefts).lengths
    labels = [*(f"< {duration(limit / 1e9)}" for limit in LIMITS), "longer"]
    used = [index for index, count in enumerate(everybody) if count]
    room = max(min(BAR, (width or 80) - 45), 10)
    yield ""
    yield paint(f"thefts from vCPUs from 1 up, by length: {OURS} emulator threads, {OTHERS} others", FAINT, colour)
    for index in range(used[0], used[-1] + 1):
        bar = _bar(ours[index], everybody[index], max(everybody), room)
        count = f"{everybody[index]:,}" if everybody[index] else ""
        own = f", {ours[index]:,} by emulator threads" if 0 < ours[index] < everybody[index] else ""
        yield f"{labels[index]:>9} {bar:{room}} {count}{own}".rstrip()


def _bar(ours: int, everybody: int, most: int, room: int) -> str:
    """What is there has one character at least."""
    length = max(round(room * everybody / most), min(everybody, 1))
    mine = min(max(round(room * ours / most), min(ours, 1)), length)
    return OURS * mine + OTHERS * (length - mine)


def _comparison(before: Trace, after: Trace, width: int, colour: bool) -> Iterator[str]:
    what = f"{printable(before.guest)}, {before.made[:19]}Z, {before.seconds:.0f} s"
    yield paint(f"before ({what}) and now", FAINT, colour)
    old = {vcpu.number: vcpu for vcpu in before.vcpus}
    rows: list[Row] = []
    for vcpu in after.vcpus:
        if vcpu.number in old and (vcpu.thefts or old[vcpu.number].thefts):
            rows += _changes(before, after, old[vcpu.number], vcpu)
    if rows:
        yield from table(CHANGE_HEADINGS, CHANGE_FIGURES, rows, width, colour)
    yield from (_wrapped(sentence, width) for sentence in compare(before, after))


def _changes(before: Trace, after: Trace, old: Vcpu, new: Vcpu) -> Iterator[Row]:
    for words, ours in (("emulator threads", True), ("others", False)):
        pairs: Sequence[tuple[str, str, str]] = [
            _figures(trace, found.count, found.stolen, found.longest)
            for trace, vcpu in ((before, old), (after, new))
            for found in (add_up(each for each in vcpu.thefts if each.is_emulator == ours),)
        ]
        first = str(new.number) if ours else ""
        yield "", (first, words, *(text for was, now in zip(*pairs) for text in (was, f"→ {now}")))


def _wrapped(text: str, width: int) -> str:
    if not width or len(text) <= width:
        return printable(text)
    import textwrap

    return textwrap.fill(printable(text), max(width, 20), break_on_hyphens=False)
