"""All that one decision looks at: the guest, the policy, the host, and what other guests have of the same CPUs."""

from __future__ import annotations

from emupin.base.frozen import Frozen
from emupin.base.text import printable
from emupin.guest.domain import of_one_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy, Rule

    Cpus = frozenset[int]


class Others(Frozen):
    """What the other guests of this host have of the CPUs that matter here: CPUs by a guest's UUID.

    `dedicated` CPUs are held by one guest's emulator threads alone, `shared` ones are used by a guest's emulator
    threads and open to those of others.
    """

    vcpus: Mapping[str, Cpus] = {}
    """Of vCPUs that are pinned."""
    dedicated: Mapping[str, Cpus] = {}
    shared: Mapping[str, Cpus] = {}
    previous: Cpus | None = None
    """What the guest itself holds, or held last."""
    floating: Mapping[str, Cpus] = {}
    """Of vCPUs that float."""
    iothreads: Mapping[str, Cpus] = {}
    """Of iothreads that are pinned."""
    vhost: Cpus | None = None
    """What the guest's own vhost workers have, or had last, apart from the emulator threads."""
    names: Mapping[str, str] = {}
    """The guests' names by UUID, where they are known."""


class Own(Frozen):
    """What a guest itself has, where what others see of it does not tell."""

    previous: Cpus | None = None
    """Like `vhost`, as in Others."""
    vhost: Cpus | None = None
    kept: Cpus = frozenset()
    """What it has alone and is on: threads of others that came there since are the ones to go."""


USES = ("vcpus", "dedicated", "shared", "floating", "iothreads")
"""The fields of Others that say whose CPUs are used for what."""


class Situation(Frozen):
    """The arguments of every placement and every check."""

    guest: Domain
    policy: Policy
    rule: Rule
    host: Host | None
    others: Others
    named: frozenset[int] = frozenset()
    """The vCPUs that the placement names, and thereby lets the emulator threads run beside."""


def pins(guest: Domain) -> list[tuple[int, Cpus | None]]:
    """The CPUs of every vCPU; None for one that may run on any CPU.

    A vCPU that is not plugged in counts where it is confined to some: it will run there once it is.
    """
    own, unpinned, offline = guest.vcpupins, guest.unpinned, guest.offline
    of_all = [(vcpu, own.get(vcpu, unpinned)) for vcpu in range(guest.vcpus)]
    return [(vcpu, cpus) for vcpu, cpus in of_all if cpus is not None or vcpu not in offline]


def vcpu_cpus(guest: Domain) -> Cpus:
    """The CPUs of all vCPUs that are confined to some."""
    return frozenset().union(*{cpus for _, cpus in pins(guest) if cpus is not None})


def home(guest: Domain, host: Host) -> frozenset[int]:
    """The NUMA nodes of `guest`: of the CPUs that its vCPUs are confined to, else of its memory, if they have CPUs."""
    bound = (guest.memory.nodes or frozenset()).union(*guest.memory.memnodes.values())
    return host.nodes_of(vcpu_cpus(guest)) or frozenset(node for node in bound if host.nodes.get(node))


def pinned_vcpus(guest: Domain, host: Host | None) -> dict[int, Cpus]:
    """The CPUs of the vCPUs that are pinned: each to CPUs of one core."""
    known = [(vcpu, cpus) for vcpu, cpus in pins(guest) if cpus is not None]
    fixed = of_one_core((cpus for _, cpus in known), host.cores if host else ())
    return {vcpu: cpus for vcpu, cpus in known if cpus in fixed}


def floating_vcpus(guest: Domain, host: Host | None) -> dict[int, Cpus | None]:
    """The CPUs of the vCPUs that are not pinned; None where they are not known."""
    fixed, anywhere = pinned_vcpus(guest, host), host.balanced(host.within(guest.partition)) if host else None
    return {vcpu: anywhere if cpus is None else cpus for vcpu, cpus in pins(guest) if vcpu not in fixed}


def all_of(*uses: Mapping[str, Cpus] | Mapping[int, Cpus]) -> Cpus:
    """The CPUs that somebody has."""
    return frozenset().union(*{cpus for each in uses for cpus in each.values()})


def meeting(pins: Iterable[Cpus | None], cpus: Cpus) -> frozenset[Cpus]:
    """The different `pins` that have some of `cpus`."""
    return frozenset(pin for pin in frozenset(pins) if pin is not None and not pin.isdisjoint(cpus))


def cpus_that_matter(guest: Domain, policy: Policy, host: Host | None) -> Cpus:
    """The CPUs that a decision for `guest` may name or look at: of the others, only what lies on these is a fact."""
    named = [policy.pool, vcpu_cpus(guest), guest.cpuset, guest.emulatorpin]
    named += [each.cpus for rule in policy.rules for each in (*rule.placement, *rule.vhost) if each.cpus]
    cpus: Cpus = frozenset().union(*filter(None, named))
    return cpus if host is None else cpus.union(*(core for core in host.cores if not core.isdisjoint(cpus)))


MOST_NAMED = 3
"""Guests that a sentence names."""


def holders(cpus: Cpus, names: Mapping[str, str], *by_guest: Mapping[str, Cpus]) -> str:
    """Who has some of `cpus`, for a sentence: `guests nfv-1 (5a3f…) and 0c1d…`; whoever has the lowest comes first."""
    lowest: dict[str, int] = {}
    for each in by_guest:
        for uuid, theirs in each.items():
            if both := theirs & cpus:
                lowest[uuid] = min(min(both), lowest.get(uuid, min(both)))
    uuids = sorted(lowest, key=lambda uuid: (lowest[uuid], uuid))
    more = [f"{len(uuids) - MOST_NAMED} more"] if len(uuids) > MOST_NAMED else []
    called = [f"{printable(names[uuid])} ({uuid})" if uuid in names else uuid for uuid in uuids[:MOST_NAMED]]
    return f"guest{'s' if len(uuids) > 1 else ''} {enumerated(called + more)}"


def enumerated(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
