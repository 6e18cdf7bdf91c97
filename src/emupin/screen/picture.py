"""A host's CPUs as a picture: by node, then by core with its siblings side by side, a cell of symbols for each CPU.

The symbols alone carry everything, colour only repeats it. The legend has only the symbols that occur, and rows of
cores that are all alike, with nobody on them, become one line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.engine.marks import Mark
from emupin.screen.mark import cell, legend, paint

if TYPE_CHECKING:
    from emupin.engine.host import Host

    Core = tuple[int, ...]

GROUP = 4
"""Cores between two wider gaps, for counting."""

ROW_SIZES = (64, 32, 16, 8, 4, 2, 1)
"""Cores in a row: the first that fits."""

LONGEST_LABEL = 17

UNSEEN = re.compile("\x1b\\[[0-9;]*m")
"""What sets a colour."""


def draw(host: Host, marks: Mapping[int, Mark], width: int, colour: bool) -> str:
    """The picture in lines of at most `width` characters, as far as that can be, ended by a newline."""
    by_cpu = {cpu: marks.get(cpu, Mark()) for cpu in host.online}
    canvas = _Canvas(host, by_cpu, colour)
    blocks = _blocks(host)
    size = next((size for size in ROW_SIZES if canvas.length(blocks, size) <= width), 1)
    lines = [*canvas.lines(blocks, size), "", *legend(by_cpu, width, colour)]
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Block:
    """A node with its cores, in runs in which the CPU numbers of one core follow those of the one before."""

    title: str
    stride: int
    """From the CPU numbers of one core to those of the next."""
    runs: tuple[tuple[Core, ...], ...]


def _blocks(host: Host) -> list[Block]:
    known = frozenset().union(*host.cores)
    cores = sorted([tuple(sorted(core)) for core in host.cores] + [(cpu,) for cpu in host.online - known])
    blocks = []
    for node in [*sorted(host.nodes), None]:
        members = [core for core in cores if host.node_of(core[0]) == node]
        if members:
            blocks.append(_block(host, node, members))
    return blocks


def _block(host: Host, node: int | None, cores: Sequence[Core]) -> Block:
    steps = Counter(after[0] - before[0] for before, after in zip(cores, cores[1:]))
    stride = steps.most_common(1)[0][0] if steps else 1
    runs: list[list[Core]] = []
    for core in cores:
        if runs and core == tuple(cpu + stride for cpu in runs[-1][-1]):
            runs[-1].append(core)
        else:
            runs.append([core])
    return Block(_title(host, node, cores), stride, tuple(tuple(run) for run in runs))


def _title(host: Host, node: int | None, cores: Sequence[Core]) -> str:
    name = "CPUs of no known node" if node is None else f"node {node}"
    cpus = frozenset(cpu for core in cores for cpu in core)
    caches = sum(not group.isdisjoint(cpus) for group in host.l3)
    parts = [_count(len(cores), "core"), _count(len(cpus), "CPU")]
    return f"{name}: {', '.join(parts)}" + (f", {caches} L3 caches (|)" if caches > 1 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class _Row:
    """Cores that stand side by side; `repeated` stands for many that are alike, by the first one's cells."""

    cores: tuple[Core, ...]
    repeated: bool = False

    @property
    def label(self) -> str:
        """The CPUs of the row; where their list would be long, those of its first and last core."""
        text = cpuset.format(cpu for core in self.cores for cpu in core)
        ends = [",".join(map(str, core)) for core in (self.cores[0], self.cores[-1])]
        return text if len(text) <= LONGEST_LABEL else "..".join(ends)


class _Canvas:
    """How the cells look, and where they go."""

    def __init__(self, host: Host, marks: Mapping[int, Mark], colour: bool) -> None:
        self.marks, self.colour = marks, colour
        self.cell_width = max(len(cell(mark)) for mark in marks.values())
        self.between = "/" if self.cell_width > 1 else ""
        """Siblings."""
        self.cache_of = {cpu: number for number, group in enumerate(host.l3) for cpu in group}

    def length(self, blocks: Sequence[Block], size: int) -> int:
        """Of the longest line with rows of `size` cores."""
        return max(len(UNSEEN.sub("", line)) for line in self.lines(blocks, size))

    def lines(self, blocks: Sequence[Block], size: int) -> Iterator[str]:
        rows = [(block, list(self._rows(block, size))) for block in blocks]
        indent = max(len(row.label) for _, block_rows in rows for row in block_rows) + 4
        for at, (block, block_rows) in enumerate(rows):
            if at:
                yield ""
            yield block.title
            longest = max((len(row.cores) for row in block_rows if not row.repeated), default=0)
            if longest > GROUP:
                yield " " * indent + self._ruler(block, longest)
            for row in block_rows:
                yield f"  {row.label}".ljust(indent) + self._cells(row)

    def _rows(self, block: Block, size: int) -> Iterator[_Row]:
        """Rows of `size` cores; neighbours that are all alike, with nobody on them, become one."""
        for run in block.runs:
            alike: list[Core] = []
            for at in range(0, len(run), size):
                cores = run[at : at + size]
                if alike and not self._is_alike(alike[:1] + list(cores)):
                    yield _Row(tuple(alike), len(alike) > size)
                    alike = []
                if self._is_alike(cores):
                    alike += cores
                else:
                    yield _Row(cores)
            if alike:
                yield _Row(tuple(alike), len(alike) > size)

    def _is_alike(self, cores: Sequence[Core]) -> bool:
        looks = {tuple(self.marks[cpu] for cpu in core) for core in cores}
        return len(looks) == 1 and not any(mark.occupied for mark in next(iter(looks)))

    def _ruler(self, block: Block, cores: int) -> str:
        """How far the CPU numbers below are from those at the row's beginning."""
        siblings = max(len(core) for run in block.runs for core in run)
        core_width = siblings * (self.cell_width + len(self.between)) - len(self.between)
        pitch = GROUP * (core_width + 1) + 1
        return "".join(f"+{at * block.stride}".ljust(pitch) for at in range(0, cores, GROUP)).rstrip()

    def _cells(self, row: _Row) -> str:
        if row.repeated:
            marks = [self.marks[cpu] for cpu in row.cores[0]]
            return f"{self.between.join(self._painted(mark) for mark in marks)} in all {len(row.cores)} cores"
        text = self._core(row.cores[0])
        for at in range(1, len(row.cores)):
            before, core = row.cores[at - 1 : at + 1]
            gap = "" if at % GROUP else " "
            text += gap + ("|" if self.cache_of.get(core[0]) != self.cache_of.get(before[0]) else " ")
            text += self._core(core)
        return text.rstrip()

    def _core(self, core: Core) -> str:
        marks = [self.marks[cpu] for cpu in core]
        return self.between.join(self._painted(mark) + " " * (self.cell_width - len(cell(mark))) for mark in marks)

    def _painted(self, mark: Mark) -> str:
        return paint(cell(mark), mark, self.colour)
