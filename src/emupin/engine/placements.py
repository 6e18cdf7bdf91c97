"""What each placement of a policy means for one guest: the CPUs that it names, or why it names none.

The pools and their arithmetic: `host.pool` is what the policy leaves to emulators. A CPU of it is *free* if it is
online, not reserved, runs no vCPU of any guest and is used by no other guest's emulator threads. `dedicated` takes
free CPUs, which are then held by one guest alone; `pool` takes all that no other guest holds alone.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.checks import is_or_are, named
from emupin.engine.situation import holders, vcpu_cpus
from emupin.policy.values import AUTO, CPUS, DEDICATED, ERROR, POOL, VCPU, Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from emupin.engine.situation import Situation
    from emupin.policy.values import Policy, Rule

    Cpus = frozenset[int]


class Choice(Frozen):
    """The CPUs that a placement names, or the reason why it names none."""

    cpus: Cpus | None
    problem: str | None = None


VCPU_0 = Placement(VCPU, 0, None, "vcpu:0")
ONE_ALONE = Placement(DEDICATED, 1, None, DEDICATED)


def expand(rule: Rule, policy: Policy) -> list[Placement]:
    """The rule's placements, with `auto` replaced by what the guide says of the guest's and the host's networking.

    - DPDK in the guest, OVS-DPDK on the host: the pCPU of vCPU 0, which is for the guest's OS and interrupts.
    - DPDK in the guest, kernel networking on the host: a dedicated pCPU, since vhost threads are heavy, else that of
      vCPU 0.
    - Kernel networking in the guest: a dedicated pCPU on the guest's NUMA node. The alternative, the pCPU of a vCPU
      that handles no network interrupts, only the guest's owner knows: a policy names it as `vcpu:N`.
    """
    expanded = []
    for placement in rule.placement:
        if placement.word != AUTO:
            expanded.append(placement)
        elif rule.guest == "kernel":
            expanded.append(ONE_ALONE)
        else:
            expanded += [VCPU_0] if policy.networking == "ovs-dpdk" else [ONE_ALONE, VCPU_0]
    return expanded


def choose(placement: Placement, situation: Situation) -> Choice:
    """What `placement` names for the guest; the checks come later."""
    return CHOOSERS[placement.word](placement, situation)


def _cpus(placement: Placement, _situation: Situation) -> Choice:
    return Choice(placement.cpus)


def _vcpu(placement: Placement, situation: Situation) -> Choice:
    guest, vcpu = situation.guest, placement.number or 0
    if vcpu >= guest.vcpus:
        return Choice(None, f"the guest has {guest.vcpus} vCPUs, numbered from 0")
    cpus, host = guest.vcpu_cpus(vcpu), situation.host
    if cpus and host and not cpus.isdisjoint(host.within(guest.partition)):
        cpus &= host.within(guest.partition)  # Where the vCPU runs: the kernel keeps it inside, too.
    return Choice(cpus, None if cpus else f"vCPU {vcpu} is not pinned")


def _pool(_placement: Placement, situation: Situation) -> Choice:
    """The whole pool on the guest's NUMA nodes, less what other guests hold alone."""
    pool, host = situation.policy.pool or frozenset(), situation.host
    near = pool
    if host is not None:
        home = host.nodes_of(vcpu_cpus(situation.guest))
        near = pool & host.online if not home else pool & frozenset().union(*(host.nodes[node] for node in home))
        if not near:
            return Choice(None, f"the pool {cpuset.format(pool)} has no CPU on the guest's NUMA nodes")
        near &= host.within(situation.guest.partition)
        if not near:
            return Choice(None, f"the pool {cpuset.format(pool)} has no CPU there that the guest's cgroup may have")
    left = near - situation.others.dedicated.keys()
    if left:
        return Choice(left)
    return Choice(
        None, f"{_all(near)} of the pool {is_or_are(near)} held, by {holders(near, situation.others.dedicated)}"
    )


def _dedicated(placement: Placement, situation: Situation) -> Choice:
    """CPUs of the pool for this guest alone.

    First what it held before, if that is still free. Else on the node of vCPU 0, then on the guest's other nodes,
    then on others where the policy lets it; full idle cores before siblings of busy ones; the lowest number.
    """
    wanted = placement.number or 1
    free, obstacles = _free(placement, situation)
    others, guest = situation.others, situation.guest
    for before in (others.previous, guest.emulatorpin):
        if before and len(before) == wanted and before <= free:
            return Choice(before)
    if len(free) < wanted:
        return Choice(None, _shortage(wanted, free, obstacles, situation))
    busy = (vcpu_cpus(guest) | others.vcpus.keys() | others.dedicated.keys() | others.shared.keys()) | (
        situation.policy.reserved
    )
    host = situation.host
    order = sorted(
        free,
        key=lambda cpu: (
            _distance(cpu, situation),
            host is not None and not host.siblings(cpu).isdisjoint(busy),
            cpu,
        ),
    )
    return Choice(frozenset(order[:wanted]))


def _free(placement: Placement, situation: Situation) -> tuple[Cpus, list[tuple[str, Cpus]]]:
    """The CPUs of the pool that can be dedicated to the guest, and for each obstacle those that cannot."""
    guest, host, others = situation.guest, situation.host, situation.others
    free, obstacles = situation.policy.pool or frozenset(), []
    taken = others.dedicated.keys() | others.shared.keys()
    for obstacle, cpus in (
        ("offline", free - host.online if host else frozenset()),
        ("outside the guest's cgroup", free & host.online - host.within(guest.partition) if host else frozenset()),
        ("reserved", situation.policy.reserved),
        ("on other NUMA nodes", _far(situation)),
        ("used by vCPUs", vcpu_cpus(guest) | others.vcpus.keys()),
        ("held", frozenset(taken)),
        *_refused(placement, situation),
    ):
        if not free.isdisjoint(cpus):
            obstacles.append((obstacle, free & cpus))
            free -= cpus
    return free, obstacles


def _refused(placement: Placement, situation: Situation) -> list[tuple[str, Cpus]]:
    """What the checks that the policy made errors would refuse, so that it is not named where others are free."""
    host, levels = situation.host, situation.rule.checks
    refused: list[tuple[str, Cpus]] = []
    if host is None:
        return refused
    if levels["smt"] == ERROR:
        vcpus = vcpu_cpus(situation.guest) | situation.others.vcpus.keys()
        siblings: Cpus = frozenset().union(*(core for core in host.cores if not core.isdisjoint(vcpus)))
        refused.append(("on cores that run vCPUs", siblings))
    if levels["isolated"] == ERROR and (placement.number or 1) > 1:
        refused.append(("isolated", host.isolated))
    return refused


def _far(situation: Situation) -> Cpus:
    """The CPUs that are too far away for the policy: where `numa` is an error, those off the guest's nodes."""
    host = situation.host
    if host is None or situation.rule.checks["numa"] != ERROR:
        return frozenset()
    home = host.nodes_of(vcpu_cpus(situation.guest))
    return frozenset(cpu for cpu in host.online if home and host.node_of(cpu) not in home)


def _distance(cpu: int, situation: Situation) -> int:
    """0 on the NUMA node of vCPU 0, 1 on another one of the guest's, 2 elsewhere."""
    host, guest = situation.host, situation.guest
    if host is None:
        return 0
    node = host.node_of(cpu)
    if node in host.nodes_of(guest.vcpu_cpus(0) or frozenset()):
        return 0
    return 1 if node in host.nodes_of(vcpu_cpus(guest)) else 2


def _shortage(wanted: int, free: Cpus, obstacles: list[tuple[str, Cpus]], situation: Situation) -> str:
    """One sentence: `all 4 CPUs of the pool are held, by 5a3f… and 0c1d…`."""
    by_cpu = {**situation.others.shared, **situation.others.dedicated}
    parts = [
        f"{is_or_are(cpus)} {obstacle}" + (f", by {holders(cpus, by_cpu)}" if obstacle == "held" else "")
        for obstacle, cpus in obstacles
    ]
    pool = situation.policy.pool or frozenset()
    if len(obstacles) == 1 and not free:
        return f"{_all(pool)} of the pool {parts[0]}"
    counted = [f"{named(cpus)} {part}" for (_, cpus), part in zip(obstacles, parts)]
    left = f"{len(free)} of the {len(pool)} CPUs of the pool {is_or_are(free) if free else 'are'} free, {wanted} wanted"
    return "; ".join([left, *counted])


def _all(cpus: Cpus) -> str:
    return f"all {len(cpus)} CPUs" if len(cpus) > 1 else f"the only CPU, {cpuset.format(cpus)},"


if TYPE_CHECKING:
    Chooser = Callable[[Placement, Situation], Choice]

CHOOSERS: dict[str, Chooser] = {CPUS: _cpus, VCPU: _vcpu, POOL: _pool, DEDICATED: _dedicated}
