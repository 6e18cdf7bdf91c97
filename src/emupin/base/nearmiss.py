"""What somebody may have meant by a word that is not allowed."""

from __future__ import annotations

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def near_miss(text: str, allowed: Iterable[str]) -> str:
    """A hint that names the word of `allowed` nearest to `text`, and all of them."""
    words = tuple(allowed)
    meant = did_you_mean(text, words)
    return f"{meant} allowed: {', '.join(words)}" if meant else f"allowed: {', '.join(words)}"


def did_you_mean(text: str, allowed: Iterable[str]) -> str:
    """A question that names the nearest word of `allowed`; empty where none is near."""
    words = tuple(allowed)
    meant = nearest(text.lower().replace("-", "_"), words) or nearest(text.lower(), words)
    return f"did you mean {meant!r}?" if meant else ""


def nearest(text: str, words: Sequence[str], alike: float = 0.6) -> str | None:
    """The one of `words` that is most like `text`; None where none is `alike`, from 0 to 1."""
    return next(iter(difflib.get_close_matches(text, words, 1, alike)), None)
