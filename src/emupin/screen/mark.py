"""What a picture shows of one CPU: its marks, their symbols, the colour that repeats them, and the legend."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping

from emupin.base import cpuset
from emupin.base.text import printable
from emupin.engine.marks import Mark

# -- symbols ----------------------------------------------------------------------------------------------------------


def zone(mark: Mark) -> str:
    symbol = "R" if mark.reserved else "P" if mark.pool else "."
    if mark.isolated:
        return ":" if symbol == "." else symbol.lower()
    return "" if symbol == "." and mark.occupied else symbol


def vcpu(mark: Mark) -> str:
    return "v" if len(mark.vcpus) > 1 else "".join(map(str, mark.vcpus))


def foreign(mark: Mark) -> str:
    return ("o" if mark.foreign else "") + ("f" if mark.floating else "") + ("t" if mark.iothreads else "")


def holder(mark: Mark) -> str:
    return ("#" if mark.dedicated else "") + ("~" if mark.shared else "")


def interrupts(mark: Mark) -> str:
    return "!" if mark.interrupts else ""


def emulator(mark: Mark) -> str:
    if mark.before:
        return "=" if mark.after else "-"
    return "+" if mark.after else ""


PARTS: tuple[Callable[[Mark], str], ...] = (zone, vcpu, foreign, holder, interrupts, emulator)
"""What a cell is made of, left to right; no symbol is of two kinds."""


def cell(mark: Mark) -> str:
    return "".join(part(mark) for part in PARTS)


# -- colour -----------------------------------------------------------------------------------------------------------

COLOURS: tuple[tuple[str, Callable[[Mark], object]], ...] = (
    ("1;32", lambda mark: mark.after),
    ("33", lambda mark: mark.before),
    ("1;36", lambda mark: mark.vcpus),
    ("1;35", lambda mark: mark.dedicated),
    ("35", lambda mark: mark.foreign or mark.floating or mark.iothreads or mark.shared),
    ("31", lambda mark: mark.reserved),
    ("94", lambda mark: mark.pool),
    ("2", lambda mark: not mark.isolated),
)
"""The first that holds: what a reader looks for comes first."""


def paint(text: str, mark: Mark, colour: bool) -> str:
    code = next((code for code, holds in COLOURS if holds(mark)), "") if colour else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


# -- legend -----------------------------------------------------------------------------------------------------------

SHORT = 8
"""Characters of a UUID that the legend shows."""

MEANINGS: tuple[tuple[Mark, Callable[[Mark], str], str], ...] = (
    (Mark(), zone, "unassigned"),
    (Mark(isolated=True), zone, "isolated"),
    (Mark(reserved=True), zone, "reserved"),
    (Mark(reserved=True, isolated=True), zone, "reserved, isolated"),
    (Mark(pool=True), zone, "pool"),
    (Mark(pool=True, isolated=True), zone, "pool, isolated"),
    (Mark(interrupts=True), interrupts, "handles network interrupts"),
    (Mark(before=True, after=True), emulator, "its emulator threads stay"),
    (Mark(before=True), emulator, "its emulator threads leave"),
    (Mark(after=True), emulator, "its emulator threads go here"),
)


def short(uuids: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(printable(uuid)[:SHORT] for uuid in uuids)


def _several(mark: Mark) -> tuple[str, ...]:
    return (f"vCPUs {cpuset.format(mark.vcpus)}",) if len(mark.vcpus) > 1 else ()


OWNERS: tuple[tuple[str, str, Callable[[Mark], tuple[str, ...]]], ...] = (
    ("v", "several of the guest", _several),
    ("o", "vCPUs of %s", lambda mark: short(mark.foreign)),
    ("f", "vCPUs that float, of %s", lambda mark: short(mark.floating)),
    ("t", "iothreads of %s", lambda mark: short(mark.iothreads)),
    ("#", "dedicated to %s", lambda mark: short(mark.dedicated)),
    ("~", "emulator threads of %s", lambda mark: short(mark.shared)),
)
"""Symbols whose CPUs the legend lists, by whose they are; %s: guests, or other guests where the picture is of one."""


def legend(by_cpu: Mapping[int, Mark], width: int, colour: bool) -> Iterator[str]:
    """Lines that explain the symbols that occur, and say who has what."""
    entries = [
        (part(example), meaning, example)
        for example, part, meaning in MEANINGS
        if any(part(mark) == part(example) for mark in by_cpu.values())
    ]
    yield from _pack(_number_entry(by_cpu) + entries, width, colour)
    is_of_one = any(mark.vcpus or mark.before or mark.after for mark in by_cpu.values())
    guests = "other guests" if is_of_one else "guests"
    for symbol, meaning, owners_of in OWNERS:
        owners: dict[str, list[int]] = {}
        for cpu, mark in sorted(by_cpu.items()):
            for owner in owners_of(mark):
                owners.setdefault(owner, []).append(cpu)
        if owners:
            example = next(mark for mark in by_cpu.values() if owners_of(mark))
            yield from _owner_lines(paint(symbol, example, colour), meaning.replace("%s", guests), owners, width)


def _number_entry(by_cpu: Mapping[int, Mark]) -> list[tuple[str, str, Mark]]:
    numbers = sorted(mark.vcpus[0] for mark in by_cpu.values() if len(mark.vcpus) == 1)
    if not numbers:
        return []
    text = str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]}..{numbers[-1]}"
    return [(text, "number of the guest's vCPU", Mark(vcpus=(0,)))]


def _pack(entries: Iterable[tuple[str, str, Mark]], width: int, colour: bool) -> Iterator[str]:
    """As many entries in a line as fit."""
    line, length = "", 0
    for symbol, meaning, example in entries:
        size = len(symbol) + 1 + len(meaning)
        if line and length + 3 + size > width:
            yield line
            line, length = "", 0
        gap = "   " if line else ""
        line += f"{gap}{paint(symbol, example, colour)} {meaning}"
        length += len(gap) + size
    if line:
        yield line


def _owner_lines(symbol: str, meaning: str, owners: Mapping[str, list[int]], width: int) -> Iterator[str]:
    text = f"{meaning}: " + "; ".join(f"{owner} on {cpuset.format(cpus)}" for owner, cpus in owners.items())
    lines = textwrap.wrap(text, max(width - 2, 20), break_long_words=False, break_on_hyphens=False)
    yield f"{symbol} {lines[0]}"
    yield from (f"  {line}" for line in lines[1:])
