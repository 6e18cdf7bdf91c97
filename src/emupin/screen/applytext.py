"""What `apply` says of a guest: lines for a terminal, or JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.live.applying import ENDED, FAILED, IN_LINE, LEFT_ALONE, MENDED, NOT_NOW, OUT_OF_LINE
from emupin.live.drift import CGROUP, THREAD, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.live.alignment import Look
    from emupin.live.applying import Result


def lines(result: Result, applied: bool, said: dict[str, str]) -> Iterator[str]:
    """What to print; `said` are the warnings that were printed before, each with the guest that it was printed for."""
    seen = result.seen
    if seen is None:
        yield f"{result.name}: {result.state}"
        return
    yield f"{result.name}: {_summary(result, seen)}"
    yield from _warnings(result, said)
    if applied:
        return
    for drift in seen.drifts:
        if drift.where in (THREAD, CGROUP):
            yield f"  {drift.what}: {_list(drift.found)} -> {_list(drift.expected)}"
    for where, diff in seen.diffs.items():
        yield f"  {where}:"
        texts = textwrap.dedent("\n".join(line[1:] for line in diff)).split("\n")
        yield from (f"    {line[0]}{text}" for line, text in zip(diff, texts))
    if seen.running and seen.plan.persist and seen.persistence == UNKNOWN:
        yield "  persistent XML: not known here; libvirt is asked with --yes"


def _warnings(result: Result, said: dict[str, str]) -> Iterator[str]:
    """One line each; one conflict may be that of many guests, and is told once."""
    again: dict[str, int] = {}
    for warning in result.done.warnings:
        first = said.setdefault(warning, result.name)
        if first == result.name:
            yield f"  - {warning}"
        else:
            again[first] = again.get(first, 0) + 1
    for first, number in again.items():
        yield f"  - the same {'warning' if number == 1 else f'{number} warnings'} as {first}"


def _summary(result: Result, seen: Look) -> str:
    """One line."""
    state = result.state + ("" if seen.running else ", shut off")
    if result.state == LEFT_ALONE:
        return f"{state}: {seen.plan.reason}"
    if seen.plan.cpus is None:
        return state
    target = f"rule {seen.plan.rule}, {seen.plan.placement}: emulator threads on {_list(seen.plan.cpus)}"
    if not seen.running and not seen.plan.persist:
        target += "; the policy does not persist it"
    return f"{state} ({target})" + (f": {acts}" if (acts := ", ".join(_acts(result))) else "")


def _acts(result: Result) -> Iterator[str]:
    done = result.done
    if done.groups:
        yield f"{done.groups} cpuset{'s' * (done.groups > 1)} written"
    if done.moved:
        yield f"{len(done.moved)} thread{'s' * (len(done.moved) > 1)} set"
    if done.recorded:
        yield " and ".join(done.recorded) + " XML changed"


def _list(cpus: frozenset[int] | None) -> str:
    return "none" if cpus is None else cpuset.format(cpus)


def count(results: Sequence[Result], state: str) -> int:
    return sum(each.state == state for each in results)


def total(results: Sequence[Result]) -> str:
    states = (MENDED, OUT_OF_LINE, IN_LINE, LEFT_ALONE, NOT_NOW, ENDED, FAILED)
    counts = [f"{number} {state}" for state in states if (number := count(results, state))]
    return f"{len(results)} guest{'' if len(results) == 1 else 's'}" + (": " + ", ".join(counts) if counts else "")


def to_json(result: Result) -> dict[str, object]:
    seen, done = result.seen, result.done
    told: dict[str, object] = {"name": result.name, "state": result.state, "error": result.error or None}
    if seen is None:
        return told
    made = seen.plan
    return {
        **told,
        "uuid": seen.guest.uuid,
        "running": seen.running,
        "rule": made.rule,
        "placement": made.placement,
        "cpus": cpuset.text(made.cpus),
        "vhost": cpuset.text(made.vhost),
        "reason": made.reason,
        "warnings": list(done.warnings),
        "changes": [
            {"where": each.where, "what": each.what, "before": cpuset.text(each.found),
             "after": _list(each.expected), "tid": each.tid}
            for each in seen.drifts
        ],
        "diff": {where: list(diff) for where, diff in seen.diffs.items()},
        "cpusets_written": done.groups,
        "threads_set": sorted(done.moved),
        "recorded": list(done.recorded),
    }  # fmt: skip
