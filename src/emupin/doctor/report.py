"""What was found, for a terminal: a line each, grouped by area, the cure below."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base.text import printable
from emupin.doctor.diagnosis import OK, PROBLEM, UNKNOWN, WARNING, Diagnosis
from emupin.screen.terminal import BOLD, FAINT, GREEN, RED, YELLOW, paint

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = {OK: GREEN, WARNING: YELLOW, PROBLEM: RED, UNKNOWN: FAINT}
WIDTH = max(map(len, COLOURS))


def render(findings: Sequence[Diagnosis], verbose: bool, colour: bool) -> str:
    """Everything if `verbose`, else what is wrong; on a healthy host one line.

    An ordinary user also sees which checks could not be made: most of them need root.
    """
    levels = (WARNING, PROBLEM, UNKNOWN) if os.geteuid() else (WARNING, PROBLEM)
    shown = [finding for finding in findings if verbose or finding.level in levels]
    lines = []
    for area in dict.fromkeys(finding.area for finding in shown):
        lines.append(paint(area, BOLD, colour))
        for finding in shown:
            if finding.area == area:
                lines += _lines(finding, colour)
    return "\n".join([*lines, summary(findings)]) + "\n"


def _lines(finding: Diagnosis, colour: bool) -> list[str]:
    level = paint(f"{finding.level:<{WIDTH}}", COLOURS[finding.level], colour)
    lines = [f"  {level}  {printable(finding.what)}"]
    return [*lines, f"  {'':<{WIDTH}}    {printable(finding.cure)}"] if finding.cure else lines


def summary(findings: Sequence[Diagnosis]) -> str:
    problems, warnings, unknowns = (count(findings, level) for level in (PROBLEM, WARNING, UNKNOWN))
    made = f"{len(findings) - unknowns} checks, {unknowns} could not be made"
    if not problems and not warnings and not (unknowns and os.geteuid()):
        return f"all is well ({made})"
    if not problems and not warnings:
        return f"no problems found, but an ordinary user cannot check everything ({made}): run it as root"
    return f"{_plural(problems, 'problem')}, {_plural(warnings, 'warning')} ({made})"


def count(findings: Sequence[Diagnosis], level: str) -> int:
    return sum(finding.level == level for finding in findings)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
