"""Scheduling events out of the pages of the kernel's ring buffer.

A page is what one read of `per_cpu/cpuN/trace_pipe_raw` gives; its form is that of `ring_buffer.c`, described in
`events/header_page` and `events/header_event`. Binary because it is several times cheaper than the text of
`trace_pipe`, and because a thread may have any name: one that reads like an event would be believed as text.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emupin.base.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Fields = Mapping[str, tuple[int, int]]
    """Offset and size of each field of an event."""
    Reader = Callable[[bytes, int, int, int], "Event"]
    """Takes the page, the offset of the event's data, the time and the CPU."""

SWITCH, WAKING, LOST = "switch", "waking", "lost"
SCHED_SWITCH, SCHED_WAKING = "sched/sched_switch", "sched/sched_waking"

RUNNABLE = 0xFF
"""Of `prev_state`: the states in which a thread wants no CPU. What is above them says that it was preempted."""
COMMITTED = (1 << 27) - 1
"""Of the word in a page's head that says how many bytes of events follow."""
MISSED = 1 << 31
"""Of the same word: events before this page were overwritten."""
LONGEST_DATA, PADDING, TIME_EXTEND, TIME_STAMP = 28, 29, 30, 31
"""Of an event's type; up to LONGEST_DATA it is the length in words, 0 where that stands in the next word."""
DELTA_BITS = 27
STAMP_BITS = 59
"""What an absolute time has; the bits above are those of the time before."""

FIELD = re.compile(r"^\tfield:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);", re.MULTILINE)
ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
INTEGERS = {1: "B", 2: "H", 4: "i", 8: "q"}


class Event(NamedTuple):
    """Something that happened on a CPU."""

    at: int
    """Nanoseconds of the trace's own clock."""
    cpu: int
    """For WAKING the CPU that the thread last had."""
    what: str
    tid: int = 0
    """Of the thread that left the CPU, or that was woken."""
    wants: bool = False
    """For SWITCH: the thread that left would have gone on."""
    next_tid: int = 0
    """For SWITCH: the thread that came; 0 is the idle one."""
    next_name: bytes = b""


@dataclass(frozen=True)
class Layout:
    """How this kernel writes its pages and events."""

    size: int
    """Bytes of a page."""
    start: int
    """Where its events begin."""
    head: struct.Struct
    """Time and committed bytes."""
    readers: Mapping[int, Reader]
    """By an event's number."""


def layout(header_page: str, switch: str, waking: str) -> Layout:
    """From the texts of `events/header_page` and of the two events' `format`. Raises TraceError."""
    page = _fields(header_page, "events/header_page")
    start, length = _field(page, "data", "events/header_page")
    size = _field(page, "commit", "events/header_page")[1]
    return Layout(
        start + length,
        start,
        struct.Struct(f"=Q{INTEGERS[size].upper()}"),
        {
            _number(switch, SCHED_SWITCH): _switches(_fields(switch, SCHED_SWITCH)),
            _number(waking, SCHED_WAKING): _wakings(_fields(waking, SCHED_WAKING)),
        },
    )


def _fields(text: str, where: str) -> Fields:
    fields = {name: (int(offset), int(size)) for name, offset, size in FIELD.findall(text)}
    if not fields:
        raise _unknown(where, "fields")
    return fields


def _field(fields: Fields, name: str, where: str) -> tuple[int, int]:
    try:
        return fields[name]
    except KeyError:
        raise _unknown(where, f"field {name!r}") from None


def _number(text: str, where: str) -> int:
    found = ID.search(text)
    if found is None:
        raise _unknown(where, "ID")
    return int(found[1])


def _unknown(where: str, what: str) -> TraceError:
    return TraceError(f"tracefs: {where}", f"has no {what}", "this kernel writes a form that emupin does not know")


def _integer(fields: Fields, name: str, where: str) -> Callable[[bytes, int], int]:
    offset, size = _field(fields, name, where)
    unpack = struct.Struct(f"={INTEGERS[size]}").unpack_from

    def read(page: bytes, start: int) -> int:
        value: int = unpack(page, start + offset)[0]
        return value

    return read


def _switches(fields: Fields) -> Reader:
    left = _integer(fields, "prev_pid", SCHED_SWITCH)
    state = _integer(fields, "prev_state", SCHED_SWITCH)
    came = _integer(fields, "next_pid", SCHED_SWITCH)
    name, size = _field(fields, "next_comm", SCHED_SWITCH)

    def read(page: bytes, start: int, at: int, cpu: int) -> Event:
        comm = page[start + name : start + name + size]
        wants = not state(page, start) & RUNNABLE
        return Event(at, cpu, SWITCH, left(page, start), wants, came(page, start), comm.partition(b"\0")[0])

    return read


def _wakings(fields: Fields) -> Reader:
    tid, cpu = (_integer(fields, name, SCHED_WAKING) for name in ("pid", "target_cpu"))
    return lambda page, start, at, _cpu: Event(at, cpu(page, start), WAKING, tid(page, start))


def read_page(page: bytes, cpu: int, form: Layout, little: bool = sys.byteorder == "little") -> Iterator[Event]:
    """The events of one page, in their order; LOST first where some before them were overwritten."""
    at, committed = form.head.unpack_from(page)
    if committed & MISSED:
        yield Event(at, cpu, LOST)
    here, end = form.start, form.start + (committed & COMMITTED)
    word = struct.Struct("=I").unpack_from
    readers = form.readers
    number = struct.Struct("=H").unpack_from
    while here < end:
        (head,) = word(page, here)
        kind, delta = (head & 31, head >> 5) if little else (head >> DELTA_BITS, head & (1 << DELTA_BITS) - 1)
        here += 4
        if kind == TIME_STAMP:
            stamp = (word(page, here)[0] << DELTA_BITS) + delta
            at = at >> STAMP_BITS << STAMP_BITS | stamp
            here += 4
            continue
        if kind == TIME_EXTEND:
            at += (word(page, here)[0] << DELTA_BITS) + delta
            here += 4
            continue
        if kind == PADDING and not delta:
            return  # Nothing follows in this page.
        at += delta
        if kind == PADDING:  # An event that was taken back.
            here += word(page, here)[0]
            continue
        length = kind * 4
        start = here
        if not kind:
            length = word(page, here)[0]
            start += 4
        reader = readers.get(number(page, start)[0])
        if reader:
            yield reader(page, start, at, cpu)
        here += length


class Sequence:
    """Brings the events of many CPUs into the order of their times, as they are read in rounds.

    What a round reads is older than all that the next one will find, but a CPU that was read early in it may have
    written since. So only what is not newer than the newest event of the round before is given out.
    """

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.newest = 0

    def take(self, events: list[Event]) -> list[Event]:
        """All that a round read, of each CPU in its order; the events that are in order now."""
        held = sorted([*self.held, *events], key=_time)
        ready = next((index for index, event in enumerate(held) if event.at > self.newest), len(held))
        self.held = held[ready:]
        if held:
            self.newest = max(self.newest, held[-1].at)
        return held[:ready]

    def rest(self) -> list[Event]:
        """What is still held: nothing more will come."""
        events, self.held = self.held, []
        return events


def _time(event: Event) -> int:
    return event.at
