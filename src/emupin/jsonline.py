"""JSON for the hook: one value, one line, ASCII only. The `json` package doubles the hook's start-up time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from json.encoder import encode_basestring_ascii as quote
    from typing import Union

    Json = Union[None, bool, int, str, Sequence["Json"], Mapping[str, "Json"]]
else:
    try:
        from _json import encode_basestring_ascii as quote
    except ImportError:
        from json.encoder import encode_basestring_ascii as quote


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
