"""What a terminal takes: so many columns, and coloured text where it is wanted."""

from __future__ import annotations

import os
import sys

from emupin.base import streams

RED, GREEN, YELLOW, BOLD, FAINT = "31", "32", "33", "1", "2"


def wants_colour() -> bool:
    return os.isatty(streams.STDOUT) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def size() -> os.terminal_size:
    """Of the terminal, or as `COLUMNS` says; 0 columns where neither is known (`shutil` takes 80, and time to load)."""
    try:
        found = os.get_terminal_size(streams.STDOUT)
    except OSError:  # not a terminal
        found = os.terminal_size((0, 24))
    columns = os.environ.get("COLUMNS", "")
    known = columns.isascii() and columns.isdigit() and int(columns)
    return os.terminal_size((int(columns), found.lines)) if known else found


def width(otherwise: int = 80) -> int:
    """The columns to fill, `otherwise` where they are not known."""
    return size().columns or otherwise


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
