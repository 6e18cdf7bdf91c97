"""What each placement of a policy means for one guest: the CPUs that it names, or why it names none."""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.engine.checks import is_or_are, named
from emupin.engine.situation import all_of, holders, home, pins, vcpu_cpus
from emupin.policy.values import AUTO, CPUS, DEDICATED, POOL, VCPU, Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emupin.engine.situation import Situation
    from emupin.policy.values import Policy, Rule

    Cpus = frozenset[int]


class Choice(Frozen):
    """The CPUs that a placement names, or the reason why it names none."""

    cpus: Cpus | None
    problem: str | None = None
    vcpus: frozenset[int] = frozenset()
    """The vCPUs that the placement names."""


VCPU_0 = Placement(VCPU, text="vcpu:0", vcpus=frozenset((0,)))
ONE_ALONE = Placement(DEDICATED, 1, text=DEDICATED)


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
    guest = situation.guest
    if placement.vcpus is None:
        return _ordinary_vcpus(situation)
    if max(placement.vcpus) >= guest.vcpus:
        return Choice(None, f"the guest has {guest.vcpus} vCPUs, numbered from 0")
    return _together({vcpu: guest.vcpu_cpus(vcpu) for vcpu in sorted(placement.vcpus)}, situation)


def _ordinary_vcpus(situation: Situation) -> Choice:
    """Nova's rule for realtime flavors: the CPUs of the vCPUs outside the realtime mask."""
    guest = situation.guest
    if not guest.realtime:
        return Choice(None, "the guest has no realtime vCPU")
    ordinary = {vcpu: cpus for vcpu, cpus in pins(guest) if vcpu not in guest.realtime}
    return _together(ordinary, situation) if ordinary else Choice(None, "every vCPU of the guest is a realtime one")


def _together(by_vcpu: Mapping[int, Cpus | None], situation: Situation) -> Choice:
    """The CPUs of some vCPUs, which must be known of each."""
    for vcpu, pin in by_vcpu.items():
        if not pin:
            return Choice(None, f"vCPU {vcpu} is not pinned: `dedicated`, `pool` or `cpus:LIST` need no pin")
    cpus: Cpus = frozenset().union(*{pin for pin in by_vcpu.values() if pin})
    inside = situation.host.within(situation.guest.partition) if situation.host else cpus
    # Where the vCPUs run: the kernel keeps them inside, too.
    return Choice(cpus & inside or cpus, vcpus=frozenset(by_vcpu))


def _pool(_placement: Placement, situation: Situation) -> Choice:
    """The whole pool on the guest's NUMA nodes, less what other guests hold alone.

    CPUs that handle network interrupts are left out while there are others. Interrupts move about: threads stay where
    they were put, unless more CPUs are without them by now. A pin in the XML counts as such where it looks like one.
    """
    pool, host = situation.policy.pool or frozenset(), situation.host
    near = pool
    if host is not None:
        own = home(situation.guest, host)
        near = pool & (host.cpus_of(own) if own else host.online)
        if not near:
            return Choice(None, f"the pool {cpuset.format(pool)} has no CPU on the guest's NUMA nodes")
        near &= host.within(situation.guest.partition)
        if not near:
            return Choice(None, f"the pool {cpuset.format(pool)} has no CPU there that the guest's cgroup may have")
    held = situation.others.dedicated
    left = near - all_of(held)
    if not left:
        who = holders(near, situation.others.names, held)
        return Choice(None, f"{_all(near)} of the pool {is_or_are(near)} held, by {who}")
    from emupin.engine.pool import interrupted  # Not every policy has a pool, and every import costs the hook.

    quiet = left - interrupted(situation) or left
    before, pin = situation.others.previous, situation.guest.emulatorpin
    if before and before <= left and len(before) >= len(quiet) and not _may_be_alone(before, situation):
        return Choice(before)
    own = vcpu_cpus(situation.guest)
    if pin and pin <= left and len(pin) == len(quiet) and pin.isdisjoint(own) and not _may_be_alone(pin, situation):
        return Choice(pin)
    return Choice(quiet)


def _may_be_alone(cpus: Cpus, situation: Situation) -> bool:
    """Whether the rule may have dedicated `cpus` to the guest: no pool has given it those then."""
    rule = situation.rule
    return any(
        each.word in (AUTO, DEDICATED) and (each.number or 1) == len(cpus) for each in (*rule.placement, *rule.vhost)
    )


def _dedicated(placement: Placement, situation: Situation) -> Choice:
    """CPUs of the pool for this guest alone: those that it held before if they are still free, else the best."""
    from emupin.engine.pool import best, free_cpus

    wanted = placement.number or 1
    free, obstacles = free_cpus(wanted, situation)
    kept = _where_numad_chose(free, situation)
    for before in (situation.others.previous, situation.guest.emulatorpin):
        if before and len(before) == wanted and before <= (kept if len(kept) >= wanted else free):
            return Choice(before)
    if len(free) < wanted:
        return Choice(None, _shortage(wanted, free, obstacles, situation))
    return Choice(best(wanted, free, situation))


def _where_numad_chose(cpus: Cpus, situation: Situation) -> Cpus:
    """Those of `cpus` on the nodes that numad chose for the guest: what it was given before that may be anywhere."""
    guest, host = situation.guest, situation.host
    if host is None or guest.numad is None:
        return cpus
    return cpus & host.cpus_of(host.nodes_of(guest.numad))


def _shortage(wanted: int, free: Cpus, obstacles: list[tuple[str, Cpus]], situation: Situation) -> str:
    """One sentence: `all 4 CPUs of the pool are held, by guests 5a3f… and 0c1d…`."""
    others = situation.others
    parts = [
        f"{is_or_are(cpus)} {obstacle}"
        + (f", by {holders(cpus, others.names, others.shared, others.dedicated)}" if obstacle == "held" else "")
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
