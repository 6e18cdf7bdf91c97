"""All that one decision looks at: the guest, the policy, the host, and what other guests have of the same CPUs."""

from __future__ import annotations

from emupin.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy, Rule

    Cpus = frozenset[int]


class Others(Frozen):
    """What the other running guests of this host have of the CPUs that matter here: a guest's UUID by CPU.

    `dedicated` CPUs are held by one guest's emulator threads alone, `shared` ones are used by a guest's emulator
    threads and open to those of others.
    """

    vcpus: Mapping[int, str] = {}
    dedicated: Mapping[int, str] = {}
    shared: Mapping[int, str] = {}
    previous: Cpus | None = None
    """What the guest itself holds, or held last."""


class Situation(Frozen):
    """The arguments of every placement and every check."""

    guest: Domain
    policy: Policy
    rule: Rule
    host: Host | None
    others: Others


def pins(guest: Domain) -> list[tuple[int, Cpus | None]]:
    """The CPUs of every vCPU; None for one that may run on any CPU.

    A vCPU that is not plugged in counts where it is confined to some: it will run there once it is.
    """
    own, floating, offline = guest.vcpupins, guest.floating, guest.offline
    of_all = [(vcpu, own.get(vcpu, floating)) for vcpu in range(guest.vcpus)]
    return [(vcpu, cpus) for vcpu, cpus in of_all if cpus is not None or vcpu not in offline]


def vcpu_cpus(guest: Domain) -> Cpus:
    """The CPUs of all vCPUs that are confined to some."""
    return frozenset().union(*(cpus for _, cpus in pins(guest) if cpus is not None))


def cpus_that_matter(guest: Domain, policy: Policy, host: Host | None) -> Cpus:
    """The CPUs that a decision for `guest` may name or look at: of the others, only what lies on these is a fact."""
    named = [policy.pool, vcpu_cpus(guest), guest.cpuset, guest.emulatorpin]
    named += [placement.cpus for rule in policy.rules for placement in rule.placement if placement.cpus]
    cpus: Cpus = frozenset().union(*filter(None, named))
    return cpus if host is None else cpus.union(*(host.siblings(cpu) for cpu in cpus))


def holders(cpus: Cpus, by_cpu: Mapping[int, str]) -> str:
    """The guests that have some of `cpus`, for a sentence: `5a3f… and 0c1d…`."""
    names = list(dict.fromkeys(by_cpu[cpu] for cpu in sorted(cpus) if cpu in by_cpu))
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
