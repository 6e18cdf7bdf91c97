"""A table of text: as wide as its cells ask for, the widest columns of text cut where that is too wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.screen.terminal import FAINT, paint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Row = tuple[str, Sequence[str]]
    """The code of its colour, and its cells: printable text."""

ELLIPSIS = "…"
NARROWEST = 6
"""To what a column of text may be cut."""


def table(
    headings: Sequence[str], figures: Sequence[bool], rows: Sequence[Row], width: int, colour: bool
) -> Iterator[str]:
    """Lines of at most `width` characters where that can be; `width` 0: as wide as it gets.

    `figures` says which columns are aligned to the right, and never cut.
    """
    all_rows = [(FAINT, headings), *rows]
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in all_rows))]
    gap, is_cut = _fit(widths, figures, width)
    form = gap.join(f"%{'' if right else '-'}{size}s" for right, size in zip(figures, widths))
    for code, cells in all_rows:
        fitting = map(_cut, cells, widths) if is_cut else cells
        yield paint((form % tuple(fitting)).rstrip(), code, colour)


def _fit(widths: list[int], figures: Sequence[bool], width: int) -> tuple[str, bool]:
    """Make `widths` smaller where they are too large together; the gap between columns, and whether any is cut."""
    if not width or sum(widths) + 2 * len(widths) - 2 <= width:
        return "  ", False
    excess = sum(widths) + len(widths) - 1 - width
    is_cut = excess > 0
    while excess > 0:
        free = [column for column, figure in enumerate(figures) if not figure and widths[column] > NARROWEST]
        if not free:
            break
        widths[max(free, key=widths.__getitem__)] -= 1
        excess -= 1
    return " ", is_cut


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + ELLIPSIS
