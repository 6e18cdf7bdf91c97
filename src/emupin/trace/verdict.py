"""What a trace comes to, in a sentence or two, and what a second one says of a first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.guest.threads import VHOST
from emupin.trace.result import add_up
from emupin.trace.thieves import FOREIGN, KERNEL, OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emupin.trace.result import Sum, Theft, Trace, Vcpu

OFTEN = 1.0
"""Times a second: what takes a CPU more seldom is not worth a word of its own."""


def verdict(trace: Trace) -> tuple[str, ...]:
    """The first sentence is about the emulator threads; others say who else takes the CPUs of vCPUs from 1 up."""
    return (_of_emulator(trace), *_of_others(trace))


def _of_emulator(trace: Trace) -> str:
    sums = {vcpu.number: emulator(vcpu) for vcpu in trace.vcpus}
    worst = max((vcpu for vcpu in trace.vcpus if vcpu.number), key=lambda vcpu: sums[vcpu.number].stolen, default=None)
    if worst is None:
        return "The guest has no vCPU but vCPU 0, which emulator threads may share."
    found = sums[worst.number]
    if not found.count and trace.lost:
        what = f"but {trace.lost:,} events were lost: trace again"
        return f"No theft by this guest's emulator threads was seen, {what}."
    if not found.count:
        times = f"in {trace.seconds:.0f} s"
        if sums.get(0) and sums[0].count:
            return f"No vCPU from 1 up lost its CPU to this guest's emulator threads {times}; vCPU 0 did, as it may."
        return f"No vCPU from 1 up lost its CPU to this guest's emulator threads {times}."
    others = sum(1 for number, each in sums.items() if number and each.count) - 1
    also = f" (and {others} other vCPU{'s' * (others > 1)} did, too)" if others else ""
    return f"vCPU {worst.number} lost its CPU to {_who(worst)} {_how(trace, found)}{also}: {cure(trace, worst)}."


def _who(vcpu: Vcpu) -> str:
    kinds = {each.thief.kind for each in vcpu.thefts if each.is_emulator}
    if kinds == {VHOST}:
        return "this guest's vhost workers"
    return "this guest's emulator threads and vhost workers" if VHOST in kinds else "this guest's emulator threads"


def _how(trace: Trace, found: Sum) -> str:
    at_least = "at least " if trace.lost else ""
    return f"{at_least}{rate(trace.rate(found.count))}, {duration(found.longest)} at the longest"


def cure(trace: Trace, vcpu: Vcpu) -> str:
    """Which placement would keep the emulator threads off the CPU of `vcpu`."""
    cpus = emulator(vcpu).cpus
    where = f"CPU{'s' * (len(cpus) > 1)} {cpuset.format(cpus)}"
    first = next((cpuset.parse_kernel(each.allowed) for each in trace.vcpus if not each.number), frozenset())
    above = frozenset().union(*(cpuset.parse_kernel(each.allowed) for each in trace.vcpus if each.number))
    if first and not first & above:
        return f"placement vcpu:0 would keep them off {where}"
    if not first & cpus:
        return f"a placement without {where} would keep them off"
    return f"vCPU 0 shares {where}: only a placement on other CPUs (dedicated, pool) would keep them off"


def _of_others(trace: Trace) -> Iterator[str]:
    vcpus = [vcpu for vcpu in trace.vcpus if vcpu.number]
    also = "also " if any(emulator(vcpu).count for vcpu in vcpus) else ""
    by_cause: dict[str, list[Theft]] = {}
    for vcpu in vcpus:
        for each in vcpu.thefts:
            if not each.is_emulator:
                by_cause.setdefault(_cause(each), []).append(each)
    for cause, thefts in sorted(by_cause.items(), key=lambda item: -add_up(item[1]).stolen):
        found = add_up(thefts)
        if trace.rate(found.count) >= OFTEN:
            yield f"vCPUs from 1 up {also}lost their CPUs {_how(trace, found)}, to {cause}."


def _cause(theft: Theft) -> str:
    thief = theft.thief
    if thief.whose == OWN:
        words = {"iothread": "iothreads: `iothreads: follow` or an iothreadpin moves them"}
        return f"this guest's own {words.get(thief.kind, 'vCPUs' if thief.kind == 'vcpu' else 'helper processes')}"
    if thief.whose == FOREIGN:
        return f"guest {thief.guest}: two guests share a CPU"
    if thief.whose == KERNEL:
        return "threads of the kernel: isolation (isolcpus, irqaffinity) keeps most of them off"
    return "other processes of the host: isolation (isolcpus, cpuset) keeps them off"


def emulator(vcpu: Vcpu) -> Sum:
    """What this guest's emulator threads and vhost workers took from `vcpu`."""
    return add_up(each for each in vcpu.thefts if each.is_emulator)


def rate(times: float) -> str:
    """`37 times a second`, `4 times a minute`."""
    if times >= 1:
        return f"{times:,.0f} times a second" if times >= 9.95 else f"{times:.1f} times a second"
    return f"{times * 60:.0f} times a minute" if times * 60 >= 1.5 else "once"


def duration(seconds: float) -> str:
    """Three figures at most, and the unit: `830 ns`, `12 µs`, `1.9 ms`, `2.3 s`."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


# -- before and after -------------------------------------------------------------------------------------------------


def compare(before: Trace, after: Trace) -> tuple[str, ...]:
    """What changed for the vCPUs from 1 up."""
    return tuple(
        _change(words, before, after, select)
        for words, select in (
            ("to this guest's emulator threads", lambda each: each.is_emulator),
            ("to anybody else", lambda each: not each.is_emulator),
        )
    )


def _change(words: str, before: Trace, after: Trace, select: Callable[[Theft], bool]) -> str:
    old, new = (_above_first(trace, select) for trace in (before, after))
    stolen = f"{before.rate(old.stolen) * 1e3:.2f} to {after.rate(new.stolen) * 1e3:.2f} ms a second"
    count = f"{before.rate(old.count):.1f} to {after.rate(new.count):.1f} a second"
    longest = f"{duration(old.longest) if old.count else 'none'} to {duration(new.longest) if new.count else 'none'}"
    return f"CPUs of vCPUs from 1 up lost {words}: {count}; time {stolen}; the longest {longest}."


def _above_first(trace: Trace, select: Callable[[Theft], bool]) -> Sum:
    return add_up(each for vcpu in trace.vcpus if vcpu.number for each in vcpu.thefts if select(each))
