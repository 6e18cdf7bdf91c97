"""Whether libvirt can start a guest whose emulator threads are pinned to a set of CPUs, and if not, why.

A pin in a domain XML holds before QEMU runs: what is wrong with it costs the start. Sources: virProcessSetAffinity and
virCgroupSetCpusetCpus as qemuProcessSetupPid calls them, qemuBuildThreadContextProps of libvirt 9.0.0, and the kernel's
cpuset: v1 refuses CPUs that the parent lacks, v2 and sched_setaffinity(2) want one that is there.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.engine.checks import is_or_are, named
from emupin.engine.confinement import DEFAULT
from emupin.engine.libvirtversion import has_whole_thread_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.guest.domain import Domain

    Cpus = frozenset[int]


def obstacle(cpus: Cpus, guest: Domain, host: Host | None) -> str | None:
    """Why libvirt on `host` fails to start `guest` with its emulator threads pinned to `cpus`; None where it does not.

    What is not known of a host is no obstacle.
    """
    if host is None:
        return None
    return _missing(cpus, guest, host) or _thread_context(cpus, guest, host)


def stuck(guest: Domain, host: Host | None) -> dict[str, str]:
    """Why libvirt fails to start `guest` with pins that its own XML has, by whose they are: `emulator`, or an iothread.

    An iothread is put in its cgroup as the emulator is, but allocates nothing (qemuProcessSetupIOThread).
    """
    own = obstacle(guest.emulatorpin, guest, host) if guest.emulatorpin else None
    pins = guest.iothreadpins if host else {}
    found = {str(each): host and _missing(pins[each], guest, host) for each in guest.iothreads if each in pins}
    return {key: why for key, why in {"emulator": own, **found}.items() if why}


def risk(cpus: Cpus, guest: Domain, host: Host | None) -> str | None:
    """Why libvirt may fail to start `guest` later with that pin: as `obstacle`, and what numad has yet to decide."""
    if host is None or not guest.memory.automatic:
        return obstacle(cpus, guest, host)
    anywhere = guest.replace(memory=guest.memory.replace(automatic=False, nodes=frozenset()))
    every = [anywhere.replace(memory=anywhere.memory.replace(nodes=frozenset((node,)))) for node in host.nodes]
    return next((why for each in every if (why := obstacle(cpus, each, host))), None)


def slows_allocation(cpus: Cpus, guest: Domain, host: Host | None) -> str | None:
    """What `cpus` cost a guest whose memory is allocated before it starts; None where that is nothing."""
    if host is None or not guest.memory.preallocated or obstacle(cpus, guest, host):
        return None
    nodes = frozenset().union(*guest.memory.preallocated) - host.nodes_of(cpus)
    if not nodes:
        return None
    where = f"NUMA node{'s' if len(nodes) > 1 else ''} {cpuset.format(nodes)}"
    return f"its memory on {where} is allocated by the emulator's {named(cpus)} alone, which may take longer"


def _missing(cpus: Cpus, guest: Domain, host: Host) -> str | None:
    """CPUs that the kernel does not let a thread of the guest have."""
    impossible = cpus - host.possible if host.possible and host.cgroup else frozenset()
    beyond = cpus - host.within(guest.partition)
    if not impossible and (not beyond or (host.cgroup != "v1" and beyond != cpus)):
        return None
    absent = impossible or beyond - host.online
    if absent:
        return f"{named(absent)} {is_or_are(absent)} not online"
    within = cpuset.format(host.within(guest.partition)) or "none"
    where = guest.partition or DEFAULT
    return f"{named(beyond)} {is_or_are(beyond)} outside the guest's cgroup ({where} may have {within})"


def _thread_context(cpus: Cpus, guest: Domain, host: Host) -> str | None:
    """What allocates memory is put on the CPUs of the memory's nodes, of which the emulator must have one."""
    if not has_whole_thread_context(host.libvirt):
        return None
    for nodes in guest.memory.preallocated:
        near = host.cpus_of(nodes)
        if near and cpus.isdisjoint(near):
            where = f"NUMA node{'s' if len(nodes) > 1 else ''} {cpuset.format(nodes)}"
            version = host.libvirt.partition(" ")[0]
            return (
                f"libvirt {version} allocates the guest's memory on {where} from a thread there, "
                f"and the pin {cpuset.format(cpus)} has no CPU on it"
            )
    return None
