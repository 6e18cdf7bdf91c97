"""What the kernel is asked to record: the less it writes down, the less a trace costs the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Range = tuple[int, int]

LONGEST = 4000
"""Characters of a filter; the kernel takes less than a page (`event_filter_write`)."""


def switches(tids: Iterable[int], cpus: Iterable[int]) -> str:
    """Of `sched_switch`: where one of `tids` comes or goes, and all that happens on `cpus`."""
    whole = [_between("CPU", each) for each in ranges(cpus)]
    return _shortest(
        tids, lambda runs: [*whole, *(_between(name, each) for each in runs for name in ("prev_pid", "next_pid"))]
    )


def wakings(tids: Iterable[int]) -> str:
    """Of `sched_waking`: where one of `tids` is woken."""
    return _shortest(tids, lambda runs: [_between("pid", each) for each in runs])


def _shortest(tids: Iterable[int], clauses: Callable[[list[Range]], list[str]]) -> str:
    """The exact filter where it is short enough, else one that lets some other threads through, too."""
    runs = ranges(tids)
    while len(text := "||".join(clauses(runs))) > LONGEST:
        runs = _joined(runs)
    return text


def ranges(numbers: Iterable[int]) -> list[Range]:
    """The first and last of each run: `1, 2, 3, 7` are `1-3` and `7-7`."""
    runs: list[Range] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _joined(runs: Sequence[Range]) -> list[Range]:
    """With the two that are nearest to each other made one."""
    nearest = min(range(len(runs) - 1), key=lambda index: runs[index + 1][0] - runs[index][1])
    return [*runs[:nearest], (runs[nearest][0], runs[nearest + 1][1]), *runs[nearest + 2 :]]


def _between(name: str, run: Range) -> str:
    first, last = run
    return f"{name}=={first}" if first == last else f"({name}>={first}&&{name}<={last})"
