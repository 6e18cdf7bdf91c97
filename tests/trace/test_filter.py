"""The filters that the kernel gets: exact where they are short enough, never too long, and never blind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emupin.trace import filter


def test_texts() -> None:
    assert filter.switches([101, 102, 103, 9], [4]) == (
        "CPU==4||prev_pid==9||next_pid==9||(prev_pid>=101&&prev_pid<=103)||(next_pid>=101&&next_pid<=103)"
    )
    assert filter.wakings([5, 7, 6]) == "(pid>=5&&pid<=7)"
    assert filter.switches([5], [1, 2, 3]) == "(CPU>=1&&CPU<=3)||prev_pid==5||next_pid==5"


@given(st.sets(st.integers(1, 4194304), min_size=1, max_size=700), st.integers(1, 3))
def test_a_filter_is_short_and_lets_every_thread_through(tids: set[int], step: int) -> None:
    spread = {tid // step * step for tid in tids}
    text = filter.switches(spread, range(0, 64, 2))
    assert len(text) <= filter.LONGEST
    scope = {"CPU": 99, "prev_pid": 0}
    expression = text.replace("||", " or ").replace("&&", " and ")
    for tid in list(spread)[:20]:
        assert eval(expression, {**scope, "next_pid": tid})
