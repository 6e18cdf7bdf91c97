"""Entries of the audit trail as text: one a line, or one in full with its policy and its CPUs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from emupin.base.text import printable, printable_lines
from emupin.screen.picture import draw
from emupin.screen.terminal import BOLD, GREEN, RED, YELLOW, paint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from emupin.trail.context import Context
    from emupin.trail.lines import Line

SHORT = 8
"""Characters of a hash or a UUID that a list shows."""

DIGITS = 12
"""Of a policy's digest."""

NARROW = 100
"""Below this width a list leaves out the year, and shows less of a guest's name."""

COLOURS = {"failed": RED, "refused": RED, "rewritten": GREEN, "decided": GREEN, "enforced": GREEN, "recorded": GREEN}
"""By outcome."""

LABELS = (
    ("time", "time"),
    ("host", "host"),
    ("guest", "name"),
    ("UUID", "uuid"),
    ("operation", "op"),
    ("outcome", "outcome"),
    ("rule", "rule"),
    ("placement", "placement"),
    ("before", "before"),
    ("after", "after"),
    ("vhost", "vhost"),
    ("reason", "reason"),
    ("emupin", "emupin"),
    ("previous", "previous"),
)
"""What `show` calls the keys of an entry, in its order."""

INDENT = 12


def row(line: Line, entry: Mapping[str, Any], width: int, colour: bool) -> str:
    """One line of at most `width` characters; all that comes from elsewhere is escaped."""
    narrow = width < NARROW
    time = plain(entry.get("time"))[:19].replace("T", " ")
    outcome, reason = plain(entry.get("outcome")), plain(entry.get("reason"))
    cells = [(_guest(entry), 14 if narrow else 24), (plain(entry.get("op")), 9), (outcome, 9)]
    what = change(entry)
    cells.append((what or reason, 18) if narrow or what else ("", 18))
    columns = [line.digest[:SHORT], f"{time[5:]:<14}" if narrow else f"{time:<19}"]
    columns += [f"{cut(text, size):<{size}}" for text, size in cells]
    text = "  ".join(columns if narrow else [*columns, reason])
    return paint(cut(text.rstrip(), width), COLOURS.get(outcome, ""), colour and outcome in COLOURS)


def _guest(entry: Mapping[str, Any]) -> str:
    return plain(entry.get("name")) or plain(entry.get("uuid"))[:SHORT] or "-"


def change(entry: Mapping[str, Any]) -> str:
    """`2-5 -> 2`, or the one pin there is and stays."""
    if "before" not in entry and "after" not in entry:
        return ""
    before, after = (plain(entry.get(key)) or "none" for key in ("before", "after"))
    return before if before == after else f"{before} -> {after}"


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def plain(value: object) -> str:
    """A value of an entry, fit for a terminal: nobody has to have written the text that is meant to be there."""
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else str(value))


def render(line: Line, entry: Mapping[str, Any], context: Context, width: int, colour: bool) -> str:
    """An entry in full, with what it was decided from."""
    blocks = [
        "\n".join(_facts(line, entry, width, colour)),
        "\n".join(_diff(entry, colour)),
        "\n".join(_policy(context, entry, colour)),
    ]
    if context.host is not None:
        blocks.append(draw(context.host, context.marks, width, colour).rstrip("\n"))
    blocks += [textwrap.fill(f"note: {remark}", max(width, 40)) for remark in context.remarks]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(line: Line, entry: Mapping[str, Any], width: int, colour: bool) -> Iterator[str]:
    yield paint(f"entry {line.digest}", BOLD, colour)
    yield from _labelled("from", line.place, width)
    for label, key in LABELS:
        if entry.get(key) is not None:
            text = _labelled(label, plain(entry[key]), width)
            yield from (paint(each, COLOURS.get(plain(entry[key]), ""), colour and key == "outcome") for each in text)
    decided = entry.get("decided")
    if isinstance(decided, dict) and decided.get("after") != entry.get("after"):
        what = f"{plain(decided.get('after')) or 'none'}: {plain(decided.get('reason'))}; it was not carried out"
        yield from _labelled("decided", what, width)
    for warning in _texts(entry.get("warnings")):
        yield from (paint(each, YELLOW, colour) for each in _labelled("warning", warning, width))
    for thread in _texts(entry.get("left")):
        yield from (paint(each, YELLOW, colour) for each in _labelled("not moved", thread, width))


def _labelled(label: str, text: str, width: int) -> list[str]:
    room = max(width, INDENT + 40)
    head, indent = f"  {label}".ljust(INDENT), " " * INDENT
    folded = textwrap.wrap(text, room, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [head + folded[0][INDENT:], *folded[1:]] if folded else [head.rstrip()]


def _diff(entry: Mapping[str, Any], colour: bool) -> Iterator[str]:
    lines = _texts(entry.get("diff"))
    if lines:
        yield paint("changes", BOLD, colour)
    for text in lines:
        yield paint(f"  {text}", {"-": RED, "+": GREEN}.get(text[:1], ""), colour and text[:1] in "-+")


def _texts(values: object) -> Sequence[str]:
    return [plain(value) for value in values] if isinstance(values, list) else []


def _policy(context: Context, entry: Mapping[str, Any], colour: bool) -> Iterator[str]:
    if context.policy:
        yield paint(f"policy in force ({plain(entry.get('policy'))[:DIGITS]}…)", BOLD, colour)
        yield textwrap.indent(printable_lines(context.policy.text.encode()).decode().rstrip("\n"), "  ")
