"""What may be wrong with a set of CPUs for a guest's emulator threads: the checks of a policy.

To add one, write its function here: the grammar, the decision and the explanation know it by its registration.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.confinement import DEFAULT
from emupin.engine.situation import all_of, enumerated, floating_vcpus, holders, home, meeting, pinned_vcpus, pins
from emupin.policy.values import ERROR, OFF, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from emupin.engine.situation import Situation

    Cpus = frozenset[int]
    Complain = Callable[[Cpus, Situation], str | None]


class Check(Frozen):
    """A check as it is registered."""

    name: str
    """As a policy knows it."""
    complain: Complain
    """What is wrong with the CPUs, in a sentence; None where nothing is."""
    level: str
    """Where the policy says nothing."""
    fixed: bool
    """No policy can change the level."""
    needs_host: bool
    """It passes where no host is known."""


CHECKS: dict[str, Check] = {}
"""By name, in the order in which they are asked."""


def check(level: str, *, fixed: bool = False, needs_host: bool = False) -> Callable[[Complain], Complain]:
    """Register a function as the check of its name."""

    def register(complain: Complain) -> Complain:
        CHECKS[complain.__name__] = Check(complain.__name__, complain, level, fixed, needs_host)
        return complain

    return register


def default_levels() -> dict[str, str]:
    """The level of every check where a policy says nothing."""
    return {name: each.level for name, each in CHECKS.items()}


@check(ERROR, fixed=True, needs_host=True)
def online(cpus: Cpus, situation: Situation) -> str | None:
    """libvirt and the kernel refuse a pin to CPUs that are not there."""
    host = situation.host
    if host is None or cpus <= host.online:
        return None
    return f"the host has no {named(cpus - host.online)} online (online are {cpuset.format(host.online)})"


@check(ERROR, fixed=True, needs_host=True)
def confined(cpus: Cpus, situation: Situation) -> str | None:
    """What the cgroup above the guest's does not have, no thread of the guest can have."""
    host, partition = situation.host, situation.guest.partition or DEFAULT
    beyond = frozenset() if host is None else cpus & host.online - host.within(partition)
    if host is None or not beyond:
        return None
    within = cpuset.format(host.within(partition))
    return f"{named(beyond)} {is_or_are(beyond)} outside the guest's cgroup: {partition} may have {within or 'nothing'}"


@check(ERROR, fixed=True)
def reserved(cpus: Cpus, situation: Situation) -> str | None:
    """`host.reserved` is never for emulators."""
    both = cpus & situation.policy.reserved
    return f"{named(both)} {is_or_are(both)} reserved" if both else None


@check(ERROR)
def vcpu_overlap(cpus: Cpus, situation: Situation) -> str | None:
    """The guide's first rule: never on a CPU of vCPU 1 or above, where packets are polled for.

    A vCPU that the placement names is one that its owner knows not to poll.
    """
    fixed = pinned_vcpus(situation.guest, situation.host)
    hit = meeting(fixed.values(), cpus)
    for vcpu, pin in fixed.items():
        if vcpu and vcpu not in situation.named and pin in hit:
            return f"vCPU {vcpu} runs on {named(cpus & pin)}"
    return None


@check(ERROR)
def foreign_overlap(cpus: Cpus, situation: Situation) -> str | None:
    """Other guests' pinned vCPUs, and the CPUs that their emulator threads hold alone."""
    others = situation.others
    for by_guest, what in ((others.vcpus, "runs vCPUs"), (others.dedicated, "is dedicated to the emulator")):
        both = cpus & all_of(by_guest)
        if both:
            first = frozenset((min(both),))
            return f"{named(first)} {what} of {holders(first, others.names, by_guest)}"
    return None


@check(WARN)
def floating(cpus: Cpus, situation: Situation) -> str | None:
    """vCPUs that float come and go: where they may be, they share a CPU with the emulator threads now and then."""
    guest, host, others = situation.guest, situation.host, situation.others
    theirs = others.floating
    moving = {vcpu: pin for vcpu, pin in floating_vcpus(guest, host).items() if vcpu not in situation.named}
    shared: dict[Cpus | None, Cpus] = {pin: pin & cpus for pin in meeting(moving.values(), cpus)}
    shared[None] = cpus
    own = {vcpu: shared[pin] for vcpu, pin in moving.items() if pin in shared}
    both = all_of(own) | cpus & all_of(theirs)
    if not both:
        return None
    whose = [f"{vcpus(own)} of this guest"] if own else []
    whose += [f"those of {holders(cpus, others.names, theirs)}"] if not cpus.isdisjoint(all_of(theirs)) else []
    return f"{named(both)} may also run vCPUs that are not pinned: {enumerated(whose)}"


@check(ERROR)
def realtime(cpus: Cpus, situation: Situation) -> str | None:
    """A vCPU with a fifo or rr scheduler never yields its CPU to an emulator thread, which then hangs the guest."""
    if not situation.guest.realtime:
        return None
    urgent = [(vcpu, pin) for vcpu, pin in pins(situation.guest) if vcpu in situation.guest.realtime]
    hit = meeting((pin for _, pin in urgent), cpus)
    for vcpu, pin in urgent:
        if pin is None or pin in hit:
            return f"vCPU {vcpu}, a realtime one, runs on {named(cpus & pin) if pin else 'any CPU'}"
    return None


@check(WARN)
def iothread_overlap(cpus: Cpus, situation: Situation) -> str | None:
    """An iothread on the CPU of vCPU 1 or above preempts it like an emulator thread, wherever those are."""
    guest, follow = situation.guest, situation.rule.follow_iothreads
    if not guest.iothreads:
        return None
    spared = situation.named | {0} if follow else {0}
    busy = {vcpu: pin for vcpu, pin in pinned_vcpus(guest, situation.host).items() if vcpu not in spared}
    allowed = {each: cpus if follow else guest.iothreadpins.get(each, guest.unpinned) for each in guest.iothreads}
    every = all_of(busy)
    shared = {pin: every if pin is None else every & pin for pin in frozenset(allowed.values())}
    there = {iothread: shared[pin] for iothread, pin in allowed.items()}
    both = all_of(there)
    if not both:
        return None
    who = numbered("iothread", (iothread for iothread, shared in there.items() if shared))
    hit = meeting(busy.values(), both)
    whose = vcpus(vcpu for vcpu, pin in busy.items() if pin in hit)
    return f"{who} may run on {named(both)}, the {'CPU' if len(both) == 1 else 'CPUs'} of {whose}"


@check(WARN, needs_host=True)
def numa(cpus: Cpus, situation: Situation) -> str | None:
    """The guide's dedicated pCPU is on the guest's own NUMA node."""
    host = situation.host
    if host is None:
        return None
    nodes, own = host.nodes_of(cpus), home(situation.guest, host)
    if not own or nodes <= own:
        return None
    return f"NUMA node {cpuset.format(nodes - own)} is not the guest's, which is {cpuset.format(own)}"


@check(WARN, needs_host=True)
def isolated(cpus: Cpus, situation: Situation) -> str | None:
    """The kernel balances nothing on isolated CPUs: of several, the lowest gets all the threads (guide)."""
    host = situation.host
    if host is None or len(cpus) < 2 or cpus.isdisjoint(host.isolated):
        return None
    both = cpus & host.isolated
    return f"{named(both)} {is_or_are(both)} isolated: threads are not spread over a set, they stay on the lowest CPU"


@check(WARN, needs_host=True)
def interrupts(cpus: Cpus, situation: Situation) -> str | None:
    """The guide's pCPU that handles no network interrupts."""
    both = cpus & situation.host.interrupts if situation.host else frozenset()
    return f"{named(both)} {'handles' if len(both) == 1 else 'handle'} interrupts of network cards" if both else None


@check(OFF, needs_host=True)
def smt(cpus: Cpus, situation: Situation) -> str | None:
    """A sibling of a vCPU's CPU takes execution units from it."""
    host = situation.host
    if host is None:
        return None
    taken = pinned_cpus(situation)
    for cpu in sorted(cpus):
        siblings = (host.siblings(cpu) - cpus) & taken
        if siblings:
            return f"CPU {cpu} is a sibling of CPU {min(siblings)}, which runs a vCPU"
    return None


def pinned_cpus(situation: Situation) -> Cpus:
    """The CPUs of all pinned vCPUs, this guest's and others'."""
    return all_of(pinned_vcpus(situation.guest, situation.host)) | all_of(situation.others.vcpus)


# -- words ------------------------------------------------------------------------------------------------------------


def named(cpus: Cpus) -> str:
    """`CPU 3` or `CPUs 3,5-6`."""
    return numbered("CPU", cpus)


def vcpus(numbers: Iterable[int]) -> str:
    """`vCPU 1` or `vCPUs 1-3`."""
    return numbered("vCPU", numbers)


def numbered(word: str, numbers: Iterable[int]) -> str:
    those = frozenset(numbers)
    return f"{word}{'s' if len(those) > 1 else ''} {cpuset.format(those)}"


def is_or_are(cpus: Cpus) -> str:
    return "are" if len(cpus) > 1 else "is"
