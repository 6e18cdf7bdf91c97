"""Look again and again: a terminal is redrawn and given back as it was, anything else gets block after block."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emupin.base.interruption import InterruptedBySignal
from emupin.live.rates import between
from emupin.screen import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.live.rates import RatesByGuest
    from emupin.live.survey import Survey

    Look = Callable[[], Survey]
    Show = Callable[[Survey, RatesByGuest], None]

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The terminal's second screen, without a cursor and with long lines cut instead of wrapped, and back."""
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(look: Look, show: Show, seconds: float) -> int:
    """Show what changed every so many `seconds` until SIGINT; the last survey's exit status. Raises EmupinError."""
    due = time.monotonic()
    before = look()
    try:
        while True:
            due = max(due + seconds, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0))
            now = look()
            show(now, between(before, now))
            before = now
    except KeyboardInterrupt:
        return before.exit_status


@contextmanager
def second_screen() -> Iterator[None]:
    """Draw on the terminal's second screen, and leave it however this ends."""

    def end(number: int, _frame: object) -> None:
        raise InterruptedBySignal(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        _write(ENTER)
        yield
    finally:
        _write(LEAVE)
        for number, handler in before.items():
            signal.signal(number, handler)


def draw(text: str) -> None:
    """Put `text` on the screen from its top; what does not fit is counted."""
    rows = terminal.size().lines
    lines = text.splitlines()
    if len(lines) > rows:
        lines = [*lines[: rows - 1], f"… {len(lines) - rows + 1} more lines: name the guests to see"]
    _write(HOME + f"{REST_OF_LINE}\r\n".join(lines) + REST_OF_LINE + REST_OF_SCREEN)


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
