"""CPU lists: the one home of their syntax.

Read as libvirt reads a `cpuset` attribute (virBitmapParse): `N`, `N-M` with N <= M, and `^N`, which removes one CPU
from what stood before it; blanks may surround a number, one trailing comma is tolerated. Written as libvirt writes it
(virBitmapFormat): sorted, runs merged, `0,1` as `0-1`. The kernel's list files are a subset of both.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HIGHEST = 16383
"""The highest CPU index that libvirt accepts (VIR_DOMAIN_CPUMASK_LEN)."""

MOST_NAMED = 1 << 20
"""CPUs that one text may name, repetitions included: a list of all there are is far shorter."""

BLANKS = " \t\n\r\f\v"

MOST_KNOWN = 4096
_known: dict[str, frozenset[int]] = {}
"""What was parsed: the guests of one fleet name the same few CPU lists again and again."""


class CpuListError(ValueError):
    """A CPU list that libvirt would reject; the message says which part and why."""


def parse(text: str) -> frozenset[int]:
    """The CPUs that `text` names.

    Raises CpuListError for anything that libvirt would reject, an empty result included.
    """
    cpus = _known.get(text)
    if cpus is None:
        cpus = _parse(text)
        if len(_known) < MOST_KNOWN:
            _known[text] = cpus
    return cpus


def _parse(text: str) -> frozenset[int]:
    if text.isascii() and text.isdigit() and len(text) < 6:
        return frozenset((_bounded(int(text), text),))
    cpus: set[int] = set()
    parts = text.split(",")
    if len(parts) > 1 and not parts[-1].strip(BLANKS):
        parts.pop()
    named = 0
    for part in parts:
        named += _add(part.strip(BLANKS), cpus)
        if named > MOST_NAMED:
            raise CpuListError("names the same CPUs again and again")
    if not cpus:
        raise CpuListError(f"{text!r} leaves no CPU at all")
    return frozenset(cpus)


def _add(part: str, cpus: set[int]) -> int:
    """Apply one part of a list (`N`, `N-M` or `^N`) to `cpus`; how many it names."""
    if part.startswith("^"):
        cpus.discard(_number(part[1:], part))
        return 1
    first, dash, last = part.partition("-")
    low = _number(first.rstrip(BLANKS), part)
    high = _number(last.lstrip(BLANKS), part) if dash else low
    if low > high:
        raise CpuListError(f"{part!r} runs backwards")
    cpus.update(range(low, high + 1))
    return high - low + 1


def _number(digits: str, part: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise CpuListError(f"{part!r} is neither N, N-M nor ^N" if part else "a part of the list is empty")
    return _bounded(int(digits[-9:]) if not digits[:-9].strip("0") else HIGHEST + 1, digits)


def _bounded(cpu: int, digits: str) -> int:
    if cpu > HIGHEST:
        raise CpuListError(f"CPU {digits[:20]} is above {HIGHEST}, the highest that libvirt accepts")
    return cpu


def parse_kernel(text: str) -> frozenset[int]:
    """The CPUs of a kernel list file such as `/sys/devices/system/cpu/isolated`; an empty file means none.

    Raises CpuListError.
    """
    return parse(text) if text.strip() else frozenset()


def format(cpus: Iterable[int]) -> str:
    """`cpus` as libvirt and the kernel print them: `0-3,8`. No CPU gives the empty string."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def text(cpus: frozenset[int] | None) -> str | None:
    """`format`, for JSON: null where there is no list."""
    return None if cpus is None else format(cpus)
