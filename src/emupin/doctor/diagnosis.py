"""What one look at the host has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"
UNKNOWN: Final = "unknown"

LEVELS: Final = (OK, WARNING, PROBLEM, UNKNOWN)


@dataclass(frozen=True)
class Diagnosis:
    """`warning`: the hook works, with a limit that one should know; `unknown`: it could not be looked at."""

    level: str
    what: str
    cure: str = ""
    area: str = ""


def ok(what: str) -> Diagnosis:
    return Diagnosis(OK, what)


def warning(what: str, cure: str) -> Diagnosis:
    return Diagnosis(WARNING, what, cure)


def problem(what: str, cure: str) -> Diagnosis:
    return Diagnosis(PROBLEM, what, cure)


def unknown(what: str, cure: str = "") -> Diagnosis:
    return Diagnosis(UNKNOWN, what, cure)


def skipped(what: str, lack: str) -> Diagnosis:
    """A check that needs what an earlier one has missed already."""
    return Diagnosis(UNKNOWN, f"{what}: not checked, {lack}")
