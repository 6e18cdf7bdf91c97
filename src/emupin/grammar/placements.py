"""The placements of a rule: their words, and what each needs from the rest of the policy."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.base.nearmiss import did_you_mean
from emupin.grammar.nodes import show
from emupin.grammar.schema import Value
from emupin.guest.domain import HIGHEST_INDEX
from emupin.policy.values import AUTO, CPUS, DEDICATED, KEEP, POOL, VCPU, Placement

FORMS = ("auto", "vcpu:N", "dedicated", "dedicated:N", "pool", "cpus:LIST", "keep")
WORDS = (AUTO, VCPU, DEDICATED, POOL, CPUS, KEEP)


class HostPart(Frozen):
    """The `host` of a policy, and which of its keys are there at all, valid or not."""

    keys: frozenset[str] = frozenset()
    networking: str | None = None
    reserved: frozenset[int] = frozenset()
    pool: frozenset[int] | None = None


def read_placements(value: Value, host: HostPart, has_guest: bool) -> tuple[Placement, ...]:
    """The placements of one rule, in order; `has_guest` says whether the rule has that key."""
    items = value.one_or_list()
    placements: list[Placement] = []
    for at, item in enumerate(items):
        placement = _read(item, item.text())
        if placement is None:
            continue
        _check_needs(placement, item, host, has_guest)
        if placement.replace(text="") in [earlier.replace(text="") for earlier in placements]:
            item.complain(f"{show(placement.text)!r} is there twice", "the second is never tried: remove it")
        if placement.word == KEEP and at < len(items) - 1:
            item.complain("'keep' is not the last placement", "nothing behind it is ever tried: move it to the end")
        placements.append(placement)
    return tuple(placements)


def _read(item: Value, text: str) -> Placement | None:
    word, colon, rest = text.partition(":")
    if not text:
        return None
    if word not in WORDS:
        item.complain(f"unknown placement {show(text)!r}", _unknown_hint(text, word))
        return None
    if word == CPUS:
        return Placement(word, None, item.parse_cpus(rest), text)
    if word in (VCPU, DEDICATED):
        number = 1 if text == DEDICATED else _number(item, word, rest)
        return None if number is None else Placement(word, number, None, text)
    if colon:
        item.complain(f"{word!r} takes nothing behind a colon, is {show(text)!r}", f"write {word}")
        return None
    return Placement(word, None, None, text)


def _number(item: Value, word: str, digits: str) -> int | None:
    low, high = (0, HIGHEST_INDEX) if word == VCPU else (1, cpuset.HIGHEST + 1)
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else -1
    if low <= number <= high:
        return number
    item.complain(f"'{word}:' needs a number from {low} to {high}, not {show(digits)!r}", f"for example {word}:{low}")
    return None


def _unknown_hint(text: str, word: str) -> str:
    forms = f"allowed: {', '.join(FORMS)}"
    if not text.strip("0123456789-^ "):
        return f'a list of CPUs is one quoted text, "cpus:0,2": inside [ ] its commas separate placements; {forms}'
    if "," in text:
        return f"several placements are a list, as in [auto, pool]; {forms}"
    return f"{did_you_mean(word, WORDS)} {forms}".lstrip()


def _check_needs(placement: Placement, item: Value, host: HostPart, has_guest: bool) -> None:
    """Complain about a placement that the rest of the policy makes impossible."""
    word = placement.word
    if word == AUTO and not (has_guest and "networking" in host.keys):
        missing = [] if "networking" in host.keys else ["host.networking (ovs-dpdk or kernel)"]
        missing += [] if has_guest else ["the rule's guest (dpdk or kernel)"]
        item.complain("'auto' cannot decide", f"add {' and '.join(missing)}")
    if word in (DEDICATED, POOL) and "pool" not in host.keys:
        item.complain(f"{word!r} has no pool to choose from", "add host.pool, the CPUs that emulators may have")
    if word == DEDICATED and host.pool and (placement.number or 1) > len(host.pool):
        item.complain(f"{placement.text!r} is more than host.pool has: {len(host.pool)}", "ask for less or add to it")
    never = (placement.cpus or frozenset()) & host.reserved
    if never:
        item.complain(f"host.reserved holds CPUs {cpuset.format(never)} too", "no emulator ever gets them: name others")
