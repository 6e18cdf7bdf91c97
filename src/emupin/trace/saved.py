"""A trace as a JSON file: written to be compared with later, read strictly."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from emupin.base.errors import HostError
from emupin.base.files import read_bytes
from emupin.trace.account import LIMITS
from emupin.trace.result import Theft, Trace, Vcpu, Waits
from emupin.trace.thieves import Thief

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
KEY = "emupin_trace"
LARGEST = 16 * 1024 * 1024
HINT = "`emupin trace GUEST --json -o FILE` writes one"


def to_json(trace: Trace) -> dict[str, Any]:
    return {KEY: VERSION, "limits": [limit / 1e9 for limit in LIMITS], **asdict(trace)}


def read(path: str) -> Trace:
    """The trace in the file `path`. Raises HostError."""
    try:
        data = read_bytes(path, LARGEST)
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", HINT) from None
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HostError(path, f"is not JSON: {error}", HINT) from None
    if not isinstance(values, dict) or values.get(KEY) != VERSION:
        raise HostError(path, f"is not a trace: it has no {KEY!r}: {VERSION}", HINT)
    try:
        return _trace(values)
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(path, f"is not a whole trace: {_what(error)}", HINT) from None


def _what(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _trace(values: Mapping[str, Any]) -> Trace:
    """Raises KeyError, TypeError, ValueError."""
    return Trace(
        _text(values["guest"]),
        _text(values["uuid"]),
        _text(values["made"]),
        _number(values["seconds"]),
        _text(values["emulator"]),
        tuple(_vcpu(each) for each in values["vcpus"]),
        _count(values["lost"]),
        _count(values["holes"]),
        tuple(_text(each) for each in values["remarks"]),
    )


def _vcpu(values: Mapping[str, Any]) -> Vcpu:
    involuntary, run, wait = (values[key] for key in ("involuntary", "run", "wait"))
    return Vcpu(
        _count(values["number"]),
        _count(values["tid"]),
        _text(values["allowed"]),
        _waits(values["gaps"]),
        _waits(values["delays"]),
        tuple(_theft(each) for each in values["thefts"]),
        None if involuntary is None else _count(involuntary),
        None if run is None else _number(run),
        None if wait is None else _number(wait),
    )


def _theft(values: Mapping[str, Any]) -> Theft:
    lengths = tuple(_count(each) for each in values["lengths"])
    if len(lengths) != len(LIMITS) + 1:
        raise ValueError(f"{len(lengths)} lengths instead of {len(LIMITS) + 1}")
    return Theft(
        _thief(values["thief"]),
        _count(values["preemptions"]),
        _count(values["blocks"]),
        _number(values["stolen"]),
        _number(values["longest"]),
        _text(values["cpus"]),
        lengths,
    )


def _thief(values: Mapping[str, Any]) -> Thief:
    number = values["number"]
    whose, kind, name, guest = (_text(values[key]) for key in ("whose", "kind", "name", "guest"))
    return Thief(whose, kind, name, None if number is None else _count(number), guest)


def _waits(values: Mapping[str, Any]) -> Waits:
    return Waits(_count(values["count"]), _number(values["total"]), _number(values["longest"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e12:
        raise TypeError(f"{value!r} is not a number of seconds")
    return float(value)
