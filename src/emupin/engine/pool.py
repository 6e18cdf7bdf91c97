"""The pool and its arithmetic: which of its CPUs are free for one guest alone, and which of those are best.

`host.pool` is what the policy leaves to emulators. A CPU of it is *free* if it is online, not reserved, no vCPU of any
guest is pinned to it and no other guest's emulator threads use it.
"""

from __future__ import annotations

from emupin.engine.checks import pinned_cpus
from emupin.engine.situation import all_of, floating_vcpus, home, pins
from emupin.policy.values import ERROR, OFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.engine.host import Host
    from emupin.engine.situation import Situation

    Cpus = frozenset[int]


def free_cpus(wanted: int, situation: Situation) -> tuple[Cpus, list[tuple[str, Cpus]]]:
    """The CPUs of the pool that can be dedicated to the guest, and for each obstacle those that cannot."""
    host, others = situation.host, situation.others
    free, obstacles = situation.policy.pool or frozenset(), []
    for obstacle, cpus in (
        ("offline", free - host.online if host else frozenset()),
        ("outside the guest's cgroup", _outside(free, situation)),
        ("reserved", situation.policy.reserved),
        ("on other NUMA nodes", _far(situation)),
        ("used by vCPUs", pinned_cpus(situation)),
        ("held", all_of(others.dedicated, others.shared)),
        *_refused(wanted, situation),
    ):
        if not free.isdisjoint(cpus):
            obstacles.append((obstacle, free & cpus))
            free -= cpus
    return free, obstacles


def _outside(cpus: Cpus, situation: Situation) -> Cpus:
    host = situation.host
    return cpus & host.online - host.within(situation.guest.partition) if host else frozenset()


def _refused(wanted: int, situation: Situation) -> Iterable[tuple[str, Cpus]]:
    """What the checks that the policy made errors would refuse, so that it is not named where others are free."""
    host, levels = situation.host, situation.rule.checks
    if levels["floating"] == ERROR:
        yield "where vCPUs float", _floated(situation)
    if levels["realtime"] == ERROR and situation.guest.realtime:
        urgent = [cpus for vcpu, cpus in pins(situation.guest) if vcpu in situation.guest.realtime]
        yield "where realtime vCPUs float", frozenset().union(*filter(None, urgent))
    if host is None:
        return
    if levels["smt"] == ERROR:
        taken = pinned_cpus(situation)
        yield "on cores that run vCPUs", frozenset().union(*(core for core in host.cores if not core.isdisjoint(taken)))
    if levels["isolated"] == ERROR and wanted > 1:
        yield "isolated", host.isolated
    if levels["interrupts"] == ERROR:
        yield "handling network interrupts", host.interrupts


def _far(situation: Situation) -> Cpus:
    """The CPUs that are too far away for the policy: where `numa` is an error, those off the guest's nodes."""
    host = situation.host
    if host is None or situation.rule.checks["numa"] != ERROR:
        return frozenset()
    own = home(situation.guest, host)
    return host.online - host.cpus_of(own) if own else frozenset()


# -- the best ---------------------------------------------------------------------------------------------------------


def best(wanted: int, free: Cpus, situation: Situation) -> Cpus:
    """So many of the `free` CPUs: near ones first, of these undisturbed ones, of these as `_compact` says."""
    disturbed = _floated(situation), _with_iothreads(situation), interrupted(situation)
    near = _by_distance(situation)
    classes: dict[tuple[int, int], set[int]] = {}
    for cpu in free:
        rank = sum(cpu not in cpus for cpus in near), sum(cpu in cpus for cpus in disturbed)
        classes.setdefault(rank, set()).add(cpu)
    chosen: Cpus = frozenset()
    for rank in sorted(classes):
        chosen |= _compact(wanted - len(chosen), frozenset(classes[rank]), situation)
    return chosen


def _compact(wanted: int, cpus: Cpus, situation: Situation) -> Cpus:
    """So many of `cpus`, if there are: whole idle cores as far as they fit, then CPUs whose siblings are idle.

    Of either those first that share a level 3 cache with vCPU 0, then the lowest.
    """
    host, others = situation.host, situation.others
    busy = pinned_cpus(situation) | all_of(others.dedicated, others.shared) | situation.policy.reserved
    cache = _cache_of_vcpu_0(situation)
    chosen: set[int] = set()
    core_of = _cores(cpus, host)
    for core in sorted(set(core_of.values()), key=lambda core: (core.isdisjoint(cache), min(core))):
        if core <= cpus and core.isdisjoint(busy) and len(chosen) + len(core) <= wanted:
            chosen |= core
    left = sorted(cpus - chosen, key=lambda cpu: (not core_of[cpu].isdisjoint(busy), cpu not in cache, cpu))
    return frozenset(chosen).union(left[: wanted - len(chosen)])


def _cores(cpus: Cpus, host: Host | None) -> dict[int, Cpus]:
    """The core of each of `cpus`; a CPU of which nothing is known is one itself."""
    known = {cpu: core for core in (host.cores if host else ()) for cpu in core}
    return {cpu: known.get(cpu) or frozenset((cpu,)) for cpu in cpus}


def _cache_of_vcpu_0(situation: Situation) -> Cpus:
    host, home = situation.host, situation.guest.vcpu_cpus(0) or frozenset()
    return frozenset().union(*(cpus for cpus in host.l3 if not cpus.isdisjoint(home))) if host else frozenset()


def _by_distance(situation: Situation) -> tuple[Cpus, ...]:
    """The CPUs on the NUMA nodes of vCPU 0, and those on the guest's: a CPU that is in neither is the farthest."""
    host, guest = situation.host, situation.guest
    if host is None:
        return ()
    first, every = host.nodes_of(guest.vcpu_cpus(0) or ()), home(guest, host)
    return host.cpus_of(first), host.cpus_of(first | every)


def _floated(situation: Situation) -> Cpus:
    """Where vCPUs float, this guest's and others'; as far as that is known."""
    own = {cpus for cpus in floating_vcpus(situation.guest, situation.host).values() if cpus}
    return all_of(situation.others.floating).union(*own)


def _with_iothreads(situation: Situation) -> Cpus:
    """The CPUs that iothreads are pinned to, others' and those of this guest that stay where they are."""
    guest = situation.guest
    own = () if situation.rule.follow_iothreads else frozenset(guest.iothreadpins.values())
    return all_of(situation.others.iothreads).union(*own)


def interrupted(situation: Situation) -> Cpus:
    """The CPUs that handle network interrupts, where the policy cares."""
    host = situation.host
    return host.interrupts if host and situation.rule.checks["interrupts"] != OFF else frozenset()
