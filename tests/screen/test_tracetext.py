"""Traces as a terminal shows them, each beside what it should be in tests/screen/traces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import made_traces as made
import pytest

from emupin.screen import tracetext
from emupin.trace.thieves import FOREIGN, GONE, KERNEL

if TYPE_CHECKING:
    from conftest import Golden

    from emupin.trace.result import Trace

TRACES = Path(__file__).parent / "traces"


def busy() -> Trace:
    """The orchestrator's union."""
    return made.trace(
        made.vcpu(0, made.theft("emulator", 9, 0.02)),
        made.vcpu(
            1,
            made.theft("emulator", 370, 0.703),
            made.theft("vcpu", 3, 0.1, FOREIGN, "CPU 2/KVM", number=2, guest="web-1"),
            made.theft("", 40, 0.0004, KERNEL, "kworker"),
            made.theft("", 1, 0.0001, GONE, "sh\x1b[31m"),
            wait=0.08,
        ),
        *(made.vcpu(number) for number in range(2, 100)),
        remarks=("the guest ended after 10.0 s",),
    )


def quiet() -> Trace:
    first = made.vcpu(0, made.theft("emulator", 90, 0.2))
    return made.trace(first, made.vcpu(1), made.vcpu(2), seconds=60.0, emulator="4")


@pytest.mark.parametrize("width", [80, 200])
def test_the_orchestrators_union(golden: Golden, width: int) -> None:
    golden(TRACES / f"union-{width}.txt", tracetext.render(busy(), None, width, False).encode())


@pytest.mark.parametrize("width", [80, 200])
def test_before_and_after(golden: Golden, width: int) -> None:
    golden(TRACES / f"against-{width}.txt", tracetext.render(quiet(), busy(), width, False).encode())


def test_lost_events_are_said_first() -> None:
    shown = tracetext.render(made.trace(made.vcpu(1), lost=1234), None, 0, False)
    assert shown.splitlines()[2] == "  1,234 events were lost: all figures are too low"


def test_no_line_is_too_long_and_no_name_reaches_the_terminal_as_it_is() -> None:
    for width in (60, 80, 120):
        shown = tracetext.render(quiet(), busy(), width, False)
        assert all(len(line) <= max(width, 66) for line in shown.splitlines()), shown
        assert "\x1b" not in shown


def test_many_thieves_are_added_up() -> None:
    thefts = [made.theft("", 1, 0.001, KERNEL, f"thread-{number}") for number in range(20)]
    shown = tracetext.render(made.trace(made.vcpu(1, *thefts)), None, 0, False)
    assert "15 others" in shown
    assert shown.count("thread-") == 5
