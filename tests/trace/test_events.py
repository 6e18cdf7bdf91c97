"""Events out of the kernel's pages, byte by byte, and their order over several CPUs."""

from __future__ import annotations

import pages
import pytest

from emupin.base.errors import TraceError
from emupin.trace import events
from emupin.trace.events import LOST, SWITCH, WAKING, Event, Sequence, read_page

FORM = pages.layout()


def test_every_kind_of_record_keeps_the_time() -> None:
    data = pages.page(
        1000,
        pages.data(0, pages.switch(7, 0, 9)),
        pages.extend(5 << 30),
        pages.data(3, pages.switch(9, 1, 7, b"CPU 1/KVM")),
        pages.taken_back(4, 12),
        pages.data(1, pages.waking(7, 5)),
        pages.stamp((1 << 40) + 11),
        pages.long_data(2, pages.switch(7, pages.PREEMPTED, 0, b"swapper/3")),
    )
    late = 1000 + (5 << 30) + 3
    assert list(read_page(data, 3, FORM)) == [
        Event(1000, 3, SWITCH, 7, True, 9, b"thief"),
        Event(late, 3, SWITCH, 9, False, 7, b"CPU 1/KVM"),
        Event(late + 5, 5, WAKING, 7),
        Event((1 << 40) + 13, 3, SWITCH, 7, True, 0, b"swapper/3"),
    ]


def test_an_absolute_time_keeps_the_bits_that_it_has_no_room_for() -> None:
    high = 5 << 59
    data = pages.page(high + 1, pages.stamp(77), pages.data(1, pages.waking(7, 0)))
    assert next(read_page(data, 0, FORM)).at == high + 78


def test_overwritten_events_are_said_before_what_is_left() -> None:
    data = pages.page(50, pages.data(0, pages.waking(7, 1)), missed=True)
    assert [(each.what, each.at) for each in read_page(data, 2, FORM)] == [(LOST, 50), (WAKING, 50)]


def test_nothing_behind_the_committed_bytes_is_believed() -> None:
    data = bytearray(pages.page(50, pages.data(0, pages.waking(7, 1))))
    data[100:172] = pages.data(0, pages.switch(1, 0, 2)) + bytes(4)
    assert len(list(read_page(bytes(data), 2, FORM))) == 1


@pytest.mark.parametrize(("state", "wants"), [(0, True), (0x100, True), (1, False), (2, False), (0x80, False)])
def test_who_would_have_gone_on(state: int, wants: bool) -> None:
    data = pages.page(1, pages.data(0, pages.switch(7, state, 9)))
    assert next(read_page(data, 0, FORM)).wants == wants


def test_a_name_that_reads_like_an_event_is_only_a_name() -> None:
    name = b"a ==> next_pid=1"
    assert next(read_page(pages.page(1, pages.data(0, pages.switch(7, 0, 9, name))), 0, FORM)).next_name == name


def test_events_of_the_other_byte_order() -> None:
    """As a big-endian machine has the head of a record: the type in the upper bits."""
    swapped = (16 << 27 | 5).to_bytes(4, "little") + pages.switch(7, 0, 9)
    assert next(read_page(pages.page(10, swapped), 0, FORM, little=False)).at == 15


@pytest.mark.parametrize(("name", "what"), [("prev_state", "field 'prev_state'"), ("ID: ", "ID"), ("field:", "fields")])
def test_a_kernel_that_writes_another_form_is_named(name: str, what: str) -> None:
    broken = pages.text("sched_switch").replace(name, "other")
    with pytest.raises(TraceError, match=rf"sched_switch: has no {what}; this kernel writes a form"):
        events.layout(pages.text("header_page"), broken, pages.text("sched_waking"))


def at(*times: int) -> list[Event]:
    return [Event(time, 0, WAKING, 1) for time in times]


def test_what_one_cpu_wrote_late_is_put_where_it_belongs() -> None:
    sequence = Sequence()
    assert sequence.take(at(10, 30)) == [], "another CPU may have written 20 since it was read"
    assert sequence.take(at(20, 40)) == at(10, 20, 30)
    assert sequence.take([]) == at(40)
    assert sequence.take(at(50)) == []
    assert sequence.rest() == at(50)
