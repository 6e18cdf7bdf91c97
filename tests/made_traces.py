"""Traces made by hand, as `emupin trace` would have found them."""

from __future__ import annotations

from typing import Any

from emupin.trace.account import LIMITS
from emupin.trace.result import Theft, Trace, Vcpu, Waits
from emupin.trace.thieves import OWN, Thief

NOBODY = Waits(0, 0.0, 0.0)


def theft(kind: str, count: int, stolen: float, whose: str = OWN, name: str = "qemu-system-x86", **more: Any) -> Theft:
    """All of one length, on CPU 14."""
    each = stolen / count
    place = sum(each >= limit / 1e9 for limit in LIMITS)
    lengths = tuple(count if index == place else 0 for index in range(len(LIMITS) + 1))
    return Theft(Thief(whose, kind, name, **more), count, 0, stolen, each, "14", lengths)


def vcpu(number: int, *thefts: Theft, allowed: str | None = None, **more: Any) -> Vcpu:
    """vCPU 0 is on CPU 4, vCPU 1 on CPU 14, vCPU 2 on CPU 15 …"""
    count, stolen = sum(each.count for each in thefts), sum(each.stolen for each in thefts)
    gaps = Waits(count, stolen, max((each.longest for each in thefts), default=0.0))
    pin = ("4" if number == 0 else str(13 + number)) if allowed is None else allowed
    return Vcpu(number, 5000 + number, pin, gaps, NOBODY, thefts, **more)


def trace(*vcpus: Vcpu, seconds: float = 10.0, lost: int = 0, emulator: str = "4,14", **more: Any) -> Trace:
    """With a vCPU 0 from which nobody took anything, unless there is one."""
    all_vcpus = vcpus if any(each.number == 0 for each in vcpus) else (vcpu(0), *vcpus)
    return Trace("nfv-1", "5a3f0000-0000-4000-8000-000000000001", "2026-03-01T10:00:00.000000Z", seconds,
                 emulator, all_vcpus, lost, **more)  # fmt: skip
