"""Which entries of the audit trail somebody asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from emupin.base.errors import EmupinError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SPAN = re.compile(r"(\d{1,6})([smhdw])")
FRACTION = re.compile(r"\.(\d+)")

PLAIN_KEYS = ("rule", "outcome", "op")
"""Keys of an entry that are compared as they are."""


@dataclass(frozen=True)
class Query:
    """What an entry must be; None asks for nothing."""

    guest: str | None = None
    """Its name or its UUID."""
    rule: str | None = None
    outcome: str | None = None
    op: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, entry: Mapping[str, Any]) -> bool:
        if self.guest is not None and self.guest not in (entry.get("name"), entry.get("uuid")):
            return False
        if any(getattr(self, key) not in (None, entry.get(key)) for key in PLAIN_KEYS):
            return False
        return self._takes_time(entry)

    def _takes_time(self, entry: Mapping[str, Any]) -> bool:
        """An entry whose time cannot be read may be of any."""
        time = moment(entry.get("time")) if self.since or self.until else None
        if time is None:
            return True
        return not (self.since and time < self.since) and not (self.until and time > self.until)


def moment(text: object) -> datetime | None:
    """The time that RFC 3339 `text` spells, None where it spells none. Without an offset it is UTC."""
    if not isinstance(text, str):
        return None
    text = FRACTION.sub(lambda match: "." + match[1][:6].ljust(6, "0"), text.strip().replace("Z", "+00:00"))
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def time_asked(text: str | None, option: str, now: datetime) -> datetime | None:
    """The time that an option names: RFC 3339, or `2h` for two hours before `now`. Raises EmupinError."""
    if text is None:
        return None
    span = SPAN.fullmatch(text)
    try:
        time = now - timedelta(**{UNITS[span[2]]: int(span[1])}) if span else moment(text)
    except OverflowError:
        time = datetime.min.replace(tzinfo=timezone.utc)
    if time is None:
        hint = "write 2026-11-22, 2026-11-22T13:40:00Z, or how long ago: 30m, 2h, 7d"
        raise EmupinError(f"{option} {text}", "is not a time", hint)
    return time
