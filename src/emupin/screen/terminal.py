"""Coloured text, on a terminal that wants it."""

from __future__ import annotations

import os
import sys

from emupin.screen import streams

RED, GREEN, YELLOW, BOLD, FAINT = "31", "32", "33", "1", "2"


def wants_colour() -> bool:
    return os.isatty(streams.STDOUT) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code and text else text


def put(text: str, colour: bool) -> None:
    """Write `text`, in which all that comes from elsewhere is escaped already.

    `streams.put` would take the colours for somebody's control sequences.
    """
    if colour:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    else:
        streams.put(text.encode("utf-8", "surrogateescape"))
