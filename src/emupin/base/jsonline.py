"""JSON for the hook: one value, one line, ASCII only. The `json` package doubles the hook's start-up time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Union

    Json = Union[None, bool, int, str, Sequence["Json"], Mapping[str, "Json"]]


def encode(value: Json) -> str:
    """`value` as `json.dumps` writes it with its default settings, floating point numbers left out."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(value)
    if hasattr(value, "items"):
        return "{" + ", ".join([f"{quote(key)}: {encode(item)}" for key, item in value.items()]) + "}"
    return "[" + ", ".join([encode(item) for item in value]) + "]"


def quote(text: str) -> str:
    """`text` in double quotes. Hardly any needs escapes: to load what knows them, a shared library, takes 0.3 ms."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _escaped(text)


def _escaped(text: str) -> str:
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    escaped: str = encode_basestring_ascii(text)
    return escaped
