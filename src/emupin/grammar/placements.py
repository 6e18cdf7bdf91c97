"""The placements of a rule: their words, and what each needs from the rest of the policy."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.base.nearmiss import did_you_mean
from emupin.engine.checks import named
from emupin.grammar.nodes import show
from emupin.grammar.schema import Value
from emupin.policy.values import AUTO, CPUS, DEDICATED, KEEP, POOL, VCPU, Placement

NON_REALTIME = "non-realtime"
FORMS = ("auto", "vcpu:LIST", "vcpu:non-realtime", "dedicated", "dedicated:N", "pool", "cpus:LIST", "keep")
WORDS = (AUTO, VCPU, DEDICATED, POOL, CPUS, KEEP)

NO_POOL = "add host.pool, the CPUs that emulators may have"


class HostPart(Frozen):
    """The `host` of a policy, and which of its keys are there at all, valid or not."""

    keys: frozenset[str] = frozenset()
    networking: str | None = None
    reserved: frozenset[int] = frozenset()
    pool: frozenset[int] | None = None


def read_placements(
    value: Value, host: HostPart, guest: str | None, words: tuple[str, ...] = WORDS
) -> tuple[Placement, ...]:
    """The placements of one rule, in order; `guest` is what the rule says of it."""
    items = value.one_or_list()
    placements: list[Placement] = []
    for at, item in enumerate(items):
        placement = _read(item, item.text())
        if placement is None:
            continue
        if placement.word not in words:
            what = f"{placement.word!r} is for emulator threads: without `vhost` the workers go with them"
            item.complain(what, f"allowed: {', '.join(form for form in FORMS if form.partition(':')[0] in words)}")
            continue
        _check_needs(placement, item, host, guest)
        if placement.replace(text="") in [earlier.replace(text="") for earlier in placements]:
            item.complain(f"{show(placement.text)!r} is listed twice", "the second is never tried: remove it")
        if placement.word == KEEP and at < len(items) - 1:
            item.complain("'keep' is not the last placement", "nothing after it is ever tried: move it to the end")
        placements.append(placement)
    return tuple(placements)


def read_vhost(value: Value, host: HostPart) -> tuple[Placement, ...]:
    """The placements of the vhost workers of one rule, in order."""
    return read_placements(value, host, None, (VCPU, DEDICATED, POOL, CPUS))


def _read(item: Value, text: str) -> Placement | None:
    word, colon, rest = text.partition(":")
    if not text:
        return None
    if word not in WORDS:
        item.complain(f"unknown placement {show(text)!r}", _unknown_hint(text, word))
        return None
    if word == CPUS:
        return Placement(word, cpus=item.parse_cpus(rest), text=text)
    if word == VCPU:
        return _read_vcpus(item, rest, text)
    if word == DEDICATED:
        number = 1 if text == DEDICATED else _number(item, rest)
        return None if number is None else Placement(word, number, text=text)
    if colon:
        item.complain(f"{word!r} takes nothing after a colon, but is {show(text)!r}", f"write {word}")
        return None
    return Placement(word, text=text)


def _read_vcpus(item: Value, rest: str, text: str) -> Placement | None:
    """`vcpu:N`, `vcpu:LIST` or `vcpu:non-realtime`."""
    if rest == NON_REALTIME:
        return Placement(VCPU, text=text)
    try:
        return Placement(VCPU, text=text, vcpus=cpuset.parse(rest))
    except cpuset.CpuListError as error:
        digits = rest.strip("0123456789-^, ") == ""
        meant = "" if digits else did_you_mean(rest, (NON_REALTIME,))
        what = f"not a list of vCPUs: {error}".replace("CPU ", "vCPU ")
        item.complain(what, f'{meant} write numbers, as in vcpu:0 or "vcpu:0,2", or vcpu:{NON_REALTIME}'.lstrip())
        return None


def _number(item: Value, digits: str) -> int | None:
    high = cpuset.HIGHEST + 1
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else -1
    if 1 <= number <= high:
        return number
    item.complain(f"'{DEDICATED}:' needs a number from 1 to {high}, not {show(digits)!r}", f"for example {DEDICATED}:1")
    return None


def _unknown_hint(text: str, word: str) -> str:
    forms = f"allowed: {', '.join(FORMS)}"
    if not text.strip("0123456789-^ "):
        return f'a list of CPUs is one quoted text, "cpus:0,2": inside [ ] its commas separate placements; {forms}'
    meant = _with_colon(text)
    if "," in text and not meant:
        return f"several placements are a list, as in [auto, pool]; {forms}"
    return f"{meant or did_you_mean(word, WORDS)} {forms}".lstrip()


def _with_colon(text: str) -> str:
    """What a placement was to be whose word, or whose colon, is missing; empty where that is not the mistake."""
    bare = text.rstrip("0123456789-^, ")
    if ":" not in text and bare != text and bare in (VCPU, DEDICATED, CPUS):
        return f"did you mean '{bare}:{text[len(bare) :]}'?"
    return f"did you mean '{VCPU}:{NON_REALTIME}'?" if did_you_mean(text, (NON_REALTIME,)) else ""


def _check_needs(placement: Placement, item: Value, host: HostPart, guest: str | None) -> None:
    """Complain about a placement that the rest of the policy makes impossible."""
    word = placement.word
    if word == AUTO:
        _check_auto(item, host, guest)
    if word in (DEDICATED, POOL) and "pool" not in host.keys:
        item.complain(f"{word!r} has no pool to choose from", NO_POOL)
    if word == DEDICATED and host.pool and (placement.number or 1) > len(host.pool):
        item.complain(f"{placement.text!r} is more than host.pool has: {len(host.pool)}", "ask for less or add to it")
    never = (placement.cpus or frozenset()) & host.reserved
    if never:
        item.complain(f"host.reserved holds {named(never)} too", "no emulator ever gets them: name others")


def _check_auto(item: Value, host: HostPart, guest: str | None) -> None:
    """`auto` reads the rule's guest, and the host's networking only where that makes a difference."""
    missing = ["the rule's guest (dpdk or kernel)"] if guest is None else []
    if guest != "kernel" and "networking" not in host.keys:
        missing.insert(0, "host.networking (ovs-dpdk or kernel)")
    if missing:
        item.complain("'auto' cannot decide", f"add {' and '.join(missing)}")
    elif guest == "kernel" and "pool" not in host.keys:
        item.complain("'auto' gives a kernel guest a dedicated CPU, and there is no pool to take it from", NO_POOL)
