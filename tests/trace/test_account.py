"""The account: who is charged, for how long, and what is left out because nobody can know it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emupin.trace.account import Account, Tally, total
from emupin.trace.events import LOST, SWITCH, WAKING, Event

VCPU, THIEF, OTHER, IDLE = 100, 7, 8, 0
WHOLE = frozenset({3})


def push(at: int, thief: int = THIEF, cpu: int = 3) -> Event:
    """The vCPU is pushed off its CPU."""
    return Event(at, cpu, SWITCH, VCPU, True, thief, b"thief")


def back(at: int, thief: int = THIEF, cpu: int = 3) -> Event:
    return Event(at, cpu, SWITCH, thief, False, VCPU, b"CPU 1/KVM")


def sleep(at: int, cpu: int = 3) -> Event:
    return Event(at, cpu, SWITCH, VCPU, False, IDLE, b"swapper/3")


def swap(at: int, left: int, came: int, cpu: int = 3) -> Event:
    return Event(at, cpu, SWITCH, left, False, came, b"x")


def wake(at: int, cpu: int = 3) -> Event:
    return Event(at, cpu, WAKING, VCPU)


def account(*events: Event, whole: frozenset[int] = WHOLE) -> Account:
    made = Account([VCPU], whole)
    made.feed(events)
    return made


def charged(made: Account) -> dict[int, tuple[int, int, int, int]]:
    return {
        tid: (each.preemptions, each.blocks, each.stolen, each.longest)
        for tid, each in made.vcpus[VCPU].thieves.items()
    }


def test_a_theft() -> None:
    made = account(push(1000), back(1500), push(2000), back(2100))
    assert charged(made) == {THIEF: (2, 0, 600, 500)}
    gaps = made.vcpus[VCPU].gaps
    assert (gaps.count, gaps.total, gaps.longest) == (2, 600, 500)
    assert made.vcpus[VCPU].thieves[THIEF].cpus == {3}


def test_each_thief_of_one_gap_is_charged_for_its_own_part() -> None:
    made = account(push(1000), swap(1200, THIEF, OTHER), swap(1900, OTHER, IDLE), back(2000, IDLE))
    assert charged(made) == {THIEF: (1, 0, 200, 200), OTHER: (1, 0, 700, 700)}
    assert made.vcpus[VCPU].gaps.total == 1000


def test_a_vcpu_that_sleeps_loses_nothing() -> None:
    made = account(sleep(1000), swap(1100, IDLE, THIEF), swap(1900, THIEF, IDLE), wake(2000), back(2010, IDLE))
    assert charged(made) == {}
    assert (made.vcpus[VCPU].delays.count, made.vcpus[VCPU].delays.total) == (1, 10)


def test_who_has_the_cpu_when_the_vcpu_is_woken_blocks_it() -> None:
    made = account(sleep(1000), swap(1100, IDLE, THIEF), wake(1500), back(1900))
    assert charged(made) == {THIEF: (0, 1, 400, 400)}
    assert made.vcpus[VCPU].gaps.count == 0


def test_a_vcpu_that_was_woken_while_it_still_ran_does_not_wait() -> None:
    made = account(back(500), wake(600), sleep(1000), swap(1100, IDLE, THIEF), swap(1900, THIEF, IDLE))
    made.finish(3000)
    assert charged(made) == {}
    assert made.vcpus[VCPU].delays.count == 0
    assert charged(account(wake(600), sleep(1000), swap(1100, IDLE, THIEF), swap(1900, THIEF, IDLE))) == {}


def test_the_end_closes_what_is_open() -> None:
    made = account(push(1000))
    made.finish(1800)
    assert charged(made) == {THIEF: (1, 0, 800, 800)}
    assert made.vcpus[VCPU].gaps.longest == 800


def test_a_floating_vcpu_is_charged_to_who_pushed_it_off_and_to_nobody_for_its_sleep() -> None:
    made = account(push(1000, cpu=5), back(1600, OTHER, cpu=6), whole=frozenset())
    assert charged(made) == {THIEF: (1, 0, 600, 600)}
    made = account(sleep(1000, cpu=5), wake(9000, cpu=5), back(9500, OTHER, cpu=6), whole=frozenset())
    assert charged(made) == {}
    made = account(sleep(1000, cpu=5), wake(9000, cpu=5), back(9500, OTHER, cpu=5), whole=frozenset())
    assert charged(made) == {OTHER: (0, 1, 500, 500)}


def test_nothing_is_made_up_where_events_were_lost() -> None:
    made = account(push(1000), Event(1500, 3, LOST), back(9000))
    assert charged(made) == {}
    assert (made.lost, made.vcpus[VCPU].gaps.count) == (1, 0)
    made.feed([push(9100), back(9200)])
    assert charged(made) == {THIEF: (1, 0, 100, 100)}


def test_nobody_is_charged_for_a_hole_in_what_the_kernel_recorded() -> None:
    """As seen on Linux 6.18: while some thread of PID 1 had the CPU, no switch was recorded, and none was lost."""
    made = account(push(1000), swap(4000, OTHER, THIEF), back(4500))
    assert charged(made) == {THIEF: (1, 0, 500, 500)}
    gaps = made.vcpus[VCPU].gaps
    assert (made.holes, gaps.count, gaps.longest) == (1, 1, 500)
    assert account(push(1000), back(1500), swap(4000, THIEF, OTHER)).holes == 1
    assert account(push(1000, cpu=5), back(1600, OTHER, cpu=5), whole=frozenset()).holes == 0


def test_a_thief_is_looked_at_anew_when_it_has_another_name() -> None:
    made = account(push(1000), back(1100))
    assert made.new == {THIEF: b"thief"}
    made.new.clear()
    made.feed([push(2000), back(2100)])
    assert made.new == {}
    made.feed([push(3000)._replace(next_name=b"renamed"), back(3100)])
    assert made.new == {THIEF: b"renamed"}


def test_lengths_are_counted_by_class() -> None:
    tally = Tally()
    for length in (9_999, 10_000, 29_999, 5_000_000, 10**9):
        tally.add(length, 3, woken=False)
    assert tally.lengths == [1, 2, 0, 0, 0, 0, 1, 0, 1]
    assert total([tally, tally]).lengths == [2, 4, 0, 0, 0, 0, 2, 0, 2]


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from((VCPU, THIEF, OTHER, IDLE)), st.booleans()), max_size=40))
def test_thieves_and_the_idle_thread_together_had_the_cpu_as_long_as_the_vcpu_waited(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Any order of threads on one CPU, each pushed off or gone to sleep."""
    made, now, running, idle, wants = Account([VCPU], WHOLE), 0, VCPU, 0, False
    for length, came, pushed in steps:
        now += length
        idle += length if running == IDLE and wants else 0
        if came == running or (came == VCPU and not wants and running != VCPU and now == length):
            continue
        wants = came != VCPU and ((running == VCPU and pushed) or (running != VCPU and wants))
        made.feed([Event(now, 3, SWITCH, running, pushed, came, b"x")])
        running = came
    made.finish(now)
    stolen = sum(each.stolen for each in made.vcpus[VCPU].thieves.values())
    assert stolen + idle == made.vcpus[VCPU].gaps.total
