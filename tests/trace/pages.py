"""Pages of the kernel's ring buffer, made by hand as `ring_buffer.c` makes them."""

from __future__ import annotations

import struct
from pathlib import Path

from emupin.trace import events
from emupin.trace.events import Layout

FORMATS = Path(__file__).with_name("formats")
"""As Linux 6.18 describes them."""
SWITCH, WAKING = 372, 375
PREEMPTED = 0x100


def text(name: str) -> str:
    return (FORMATS / name).read_text()


def layout() -> Layout:
    return events.layout(text("header_page"), text("sched_switch"), text("sched_waking"))


def switch(left: int, state: int, came: int, name: bytes = b"thief") -> bytes:
    common = struct.pack("=HBBi", SWITCH, 0, 0, left)
    return common + struct.pack("=16siiq16sii", b"left", left, 120, state, name, came, 120)


def waking(tid: int, cpu: int) -> bytes:
    return struct.pack("=HBBi", WAKING, 0, 0, 1) + struct.pack("=16siii", b"CPU 1/KVM", tid, 120, cpu)


def data(delta: int, payload: bytes) -> bytes:
    assert len(payload) % 4 == 0
    return struct.pack("=I", delta << 5 | len(payload) // 4) + payload


def long_data(delta: int, payload: bytes) -> bytes:
    return struct.pack("=II", delta << 5, len(payload) + 4) + payload


def extend(delta: int) -> bytes:
    return struct.pack("=II", (delta & (1 << 27) - 1) << 5 | 30, delta >> 27)


def stamp(at: int) -> bytes:
    return struct.pack("=II", (at & (1 << 27) - 1) << 5 | 31, at >> 27 & 0xFFFFFFFF)


def taken_back(delta: int, length: int) -> bytes:
    return struct.pack("=II", delta << 5 | 29, length) + bytes(length - 4)


def page(at: int, *pieces: bytes, missed: bool = False) -> bytes:
    body = b"".join(pieces)
    return (struct.pack("=QQ", at, len(body) | (1 << 31 if missed else 0)) + body).ljust(4096, b"\0")
