"""Unified diffs of bytes, as `diff -u` and `git diff` write them, for `patch` and `git apply`.

Lines end at LF alone, so that CRLF, Latin-1 and a missing newline at the end go through unchanged.
"""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Opcode = tuple[str, int, int, int, int]
    Lines = list[bytes]

CONTEXT = 3
NO_NEWLINE = b"\n\\ No newline at end of file\n"


def unified(before: bytes, after: bytes, path: str) -> bytes:
    """The diff from `before` to `after`, both of the file `path`; empty where they are equal."""
    if before == after:
        return b""
    old, new = BytesIO(before).readlines(), BytesIO(after).readlines()
    first, tail = _window(old, new)
    old, new = old[first : len(old) - tail], new[first : len(new) - tail]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    hunks = [_hunk(group, old, new, first) for group in matcher.get_grouped_opcodes(CONTEXT)]
    return b"--- %s\n+++ %s\n%s" % (_label("a", path), _label("b", path), b"".join(hunks))


def _window(old: Lines, new: Lines) -> tuple[int, int]:
    """How many equal lines at the start and at the end need not be compared: all but the context."""
    shorter = min(len(old), len(new))
    head = next((number for number in range(shorter) if old[number] != new[number]), shorter)
    tail = next((number for number in range(shorter - head) if old[-1 - number] != new[-1 - number]), shorter - head)
    return max(head - CONTEXT, 0), max(tail - CONTEXT, 0)


def _hunk(group: Sequence[Opcode], old: Lines, new: Lines, first: int) -> bytes:
    _, old_start, _, new_start, _ = group[0]
    _, _, old_end, _, new_end = group[-1]
    pieces = [b"@@ -%s +%s @@\n" % (_range(first, old_start, old_end), _range(first, new_start, new_end))]
    for tag, old_low, old_high, new_low, new_high in group:
        if tag == "equal":
            pieces += [_line(b" ", line) for line in old[old_low:old_high]]
        else:
            pieces += [_line(b"-", line) for line in old[old_low:old_high]]
            pieces += [_line(b"+", line) for line in new[new_low:new_high]]
    return b"".join(pieces)


def _line(mark: bytes, line: bytes) -> bytes:
    return mark + line if line.endswith(b"\n") else mark + line + NO_NEWLINE


def _range(first: int, start: int, end: int) -> bytes:
    """Line number and length; a length of 1 is left out, and an empty range names the line before it."""
    length = end - start
    if length == 1:
        return b"%d" % (first + start + 1)
    return b"%d,%d" % (first + start + (length > 0), length)


def _label(side: str, path: str) -> bytes:
    """`a/PATH`, quoted as git does where the name needs it; a blank needs a tab behind the name."""
    label = os.fsencode(f"{side}/{os.path.normpath(path).lstrip('/')}")
    if any(byte < 0x20 or byte in b'"\\\x7f' for byte in label):
        return b'"%s"' % b"".join(b"\\%03o" % byte if _needs_quote(byte) else b"%c" % byte for byte in label)
    return label + b"\t" if b" " in label else label


def _needs_quote(byte: int) -> bool:
    return not 0x20 <= byte < 0x7F or byte in b'"\\'
