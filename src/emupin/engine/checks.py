"""What may be wrong with a set of CPUs for a guest's emulator threads: the checks of a policy.

To add one, write its function here: the grammar, the decision and the explanation know it by its registration.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.confinement import DEFAULT
from emupin.engine.situation import holders, pins, vcpu_cpus
from emupin.policy.values import ERROR, OFF, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
    """The guide's first rule: never on a CPU of vCPU 1 or above, where packets are polled for."""
    for vcpu, pin in pins(situation.guest):
        if vcpu and pin is None:
            return f"vCPU {vcpu} is not pinned and may run on any CPU"
        if vcpu and pin and not cpus.isdisjoint(pin):
            return f"vCPU {vcpu} runs on {named(cpus & pin)}"
    return None


@check(ERROR)
def foreign_overlap(cpus: Cpus, situation: Situation) -> str | None:
    """Other guests' vCPUs, and the CPUs that their emulator threads hold alone."""
    others = situation.others
    for by_cpu, what in ((others.vcpus, "runs vCPUs"), (others.dedicated, "is dedicated to the emulator")):
        both = cpus & by_cpu.keys()
        if both:
            first = frozenset((min(both),))
            return f"{named(first)} {what} of guest {holders(first, by_cpu)}"
    return None


@check(ERROR)
def realtime(cpus: Cpus, situation: Situation) -> str | None:
    """A vCPU with a fifo or rr scheduler never yields its CPU to an emulator thread, which then hangs the guest."""
    urgent = situation.guest.realtime
    for vcpu, pin in pins(situation.guest) if urgent else ():
        if vcpu in urgent and (pin is None or not cpus.isdisjoint(pin)):
            return f"vCPU {vcpu}, a realtime one, runs on {named(cpus & pin) if pin else 'any CPU'}"
    return None


@check(WARN, needs_host=True)
def numa(cpus: Cpus, situation: Situation) -> str | None:
    """The guide's dedicated pCPU is on the guest's own NUMA node."""
    host = situation.host
    if host is None:
        return None
    nodes, home = host.nodes_of(cpus), host.nodes_of(vcpu_cpus(situation.guest))
    if not home or nodes <= home:
        return None
    return f"NUMA node {cpuset.format(nodes - home)} is not the guest's, which is {cpuset.format(home)}"


@check(WARN, needs_host=True)
def isolated(cpus: Cpus, situation: Situation) -> str | None:
    """The kernel balances nothing on isolated CPUs: of several, the lowest gets all the threads (guide)."""
    host = situation.host
    if host is None or len(cpus) < 2 or cpus.isdisjoint(host.isolated):
        return None
    both = cpus & host.isolated
    return f"{named(both)} {is_or_are(both)} isolated: threads are not spread over a set, they stay on the lowest CPU"


@check(OFF, needs_host=True)
def smt(cpus: Cpus, situation: Situation) -> str | None:
    """A sibling of a vCPU's CPU takes execution units from it."""
    host = situation.host
    if host is None:
        return None
    vcpus = vcpu_cpus(situation.guest) | situation.others.vcpus.keys()
    for cpu in sorted(cpus):
        siblings = (host.siblings(cpu) - cpus) & vcpus
        if siblings:
            return f"CPU {cpu} is a sibling of CPU {min(siblings)}, which runs a vCPU"
    return None


def named(cpus: Cpus) -> str:
    """`CPU 3` or `CPUs 3,5-6`."""
    return f"CPU{'s' if len(cpus) > 1 else ''} {cpuset.format(cpus)}"


def is_or_are(cpus: Cpus) -> str:
    return "are" if len(cpus) > 1 else "is"
