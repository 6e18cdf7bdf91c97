"""Signals that ask for an end, held back while a file is replaced, so that no temporary file is left behind."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from typing_extensions import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedBySignal(BaseException):
    """A signal asked for an end. Not an error, hence no Exception, like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """While entered, a signal is only noted; `check` raises it where work can end. Ignored ones stay ignored."""

    def __init__(self) -> None:
        self.noted: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, _frame: FrameType | None) -> None:
        self.noted = number

    def check(self) -> None:
        """Raise InterruptedBySignal if a signal came."""
        if self.noted is not None:
            raise InterruptedBySignal(self.noted)
