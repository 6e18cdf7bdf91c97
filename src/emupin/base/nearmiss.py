"""What somebody may have meant by a word that is not allowed."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def near_miss(text: str, allowed: Iterable[str]) -> str:
    """A hint that names the word of `allowed` nearest to `text`, and all of them."""
    words = tuple(allowed)
    meant = did_you_mean(text, words)
    return f"{meant} allowed: {', '.join(words)}" if meant else f"allowed: {', '.join(words)}"


def did_you_mean(text: str, allowed: Iterable[str]) -> str:
    """A question that names the nearest word of `allowed`; empty where none is near."""
    nearest = difflib.get_close_matches(text.lower().replace("-", "_"), allowed, 1)
    nearest = nearest or difflib.get_close_matches(text.lower(), allowed, 1)
    return f"did you mean {nearest[0]!r}?" if nearest else ""
