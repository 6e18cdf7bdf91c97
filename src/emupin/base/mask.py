"""Sets of CPUs as the bits of a number: of a thousand guests many are looked through, and few unpacked."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def to_mask(cpus: Iterable[int]) -> int:
    """A set of CPUs as the bits of a number."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def from_mask(mask: int) -> frozenset[int]:
    """The inverse of `to_mask`."""
    cpus = []
    while mask:
        lowest = mask & -mask
        cpus.append(lowest.bit_length() - 1)
        mask ^= lowest
    return frozenset(cpus)
