"""The likely cause of a drift, told from which of the places that hold a pin agree with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base.frozen import Frozen
from emupin.guest.threads import VHOST
from emupin.node.enforce import UNMOVABLE

if TYPE_CHECKING:
    from emupin.guest.domain import Domain
    from emupin.guest.threads import Thread

    Cpus = frozenset[int]

NOT_PLACED = (
    "no placement of this run of the guest is known: the hook was not there, the policy left the guest alone, "
    "it was taken back (`emupin apply --undo`), or /run/emupin was lost"
)
NOT_RECORDED = (
    "libvirt has not recorded it yet: right after a start it needs a moment, a migration, save or copy has to end "
    "first; later python3-libvirt may be missing"
)
FEWER_ABOVE = "a cgroup above the guest's has fewer CPUs"
OUTSIDE = "it was moved out of the guest's cgroup"
VHOST_OUTSIDE = f"{OUTSIDE}, or never put there: Linux before 5.16 keeps vhost workers in the root cgroup (cgroup v2)"
ROOT_CGROUP = "Linux before 5.16 keeps vhost workers in the root cgroup (cgroup v2)"
NEW_IOTHREAD = "it was added since (`virsh iothreadadd`), or the policy had iothreads stay where they are"
OTHER_REASONS = "the policy, the host or another guest has changed"


class Views(Frozen):
    """What each place says of threads that are pinned together."""

    command: str
    """virsh's, which is also the element's name: emulatorpin or iothreadpin."""
    planned: Cpus
    claimed: Cpus | None
    """What was decided last."""
    group: Cpus | None
    """What was written to their cpuset cgroup; None where they have none."""
    effective: Cpus | None
    """What of it holds."""
    live: Cpus | None
    persistent: Cpus | None
    persistent_known: bool
    threads_right: bool
    pid: int
    change: str
    """Why the plan may differ from what was decided last."""


def plan_change(live: Domain, persistent: Domain | None) -> str:
    """What in a guest that was started as `persistent` says may have changed its plan; empty where nothing did."""
    if persistent is None:
        return ""
    changes = []
    if live.vcpus - len(live.offline) != persistent.vcpus - len(persistent.offline):
        changes.append("plugged in or out")
    if live.vcpupins != persistent.vcpupins:
        changes.append("re-pinned (`virsh vcpupin`)")
    return f"vCPUs were {' and '.join(changes)}" if changes else ""


def of_thread(thread: Thread, views: Views) -> str:
    if thread.fixed:
        return UNMOVABLE
    if thread.outside:
        return _outside(thread)
    if views.group is None or views.effective is None:
        return _of_free_thread(thread, views)
    if not thread.allowed <= views.effective:
        return VHOST_OUTSIDE if thread.kind == VHOST else OUTSIDE
    if thread.allowed == views.effective != views.group:
        return FEWER_ABOVE
    if views.group == views.planned:
        return "set by hand (taskset): the cgroup is right"
    if thread.allowed == views.group:
        return of_group(views)  # It follows its cgroup.
    return "set by hand (taskset), and the cgroup is wrong as well"


def _outside(thread: Thread) -> str:
    """Of a thread that is in none of libvirt's cgroups, though others of its guest are."""
    if thread.kind == VHOST and thread.group == "/":
        return ROOT_CGROUP
    return f"{OUTSIDE}: somebody (cset, vfio-isolate or the like) put it into {thread.group or '/'}"


def _is_new(pin: Cpus | None, views: Views) -> bool:
    """Whether these are an iothread's that the definition with this `pin` has none for: it was not placed there yet."""
    return views.command == "iothreadpin" and pin is None


def _of_free_thread(thread: Thread, views: Views) -> str:
    """No cpuset cgroup holds it."""
    if _was_planned(thread.allowed, views):
        return _changed(views)
    if views.claimed is None:
        return NOT_PLACED
    if _is_new(views.live, views):
        return NEW_IOTHREAD
    if thread.allowed == views.live and thread.tid == views.pid:
        return f"`virsh {views.command} --live`, which moves the main thread only where there is no cpuset cgroup"
    return "set by hand (taskset), or started by a thread that was"


def of_group(views: Views) -> str:
    group = views.group
    if _was_planned(group, views):
        return _changed(views)
    if views.claimed is None and (group == views.live or views.live is None):
        return NOT_PLACED
    if _is_new(views.live, views):
        return NEW_IOTHREAD
    if group == views.live:
        return of_live(views)
    right = "libvirt's XML is right" if views.live == views.planned else "libvirt's XML says something else again"
    return f"the cpuset cgroup was written by hand: {right}"


def of_live(views: Views) -> str:
    if _was_planned(views.live, views):
        return _changed(views)
    if views.threads_right and views.group in (views.planned, None):
        return NOT_RECORDED
    if views.claimed is None:
        return NOT_PLACED
    if _is_new(views.live, views):
        return NEW_IOTHREAD
    if not views.persistent_known:
        return f"`virsh {views.command} --live`"
    if views.persistent == views.planned:
        return f"`virsh {views.command} --live` only: the persistent XML is right"
    if views.persistent == views.live:
        return f"`virsh {views.command} --live --config`"
    return f"`virsh {views.command} --live`, and the persistent XML has another pin again"


def of_persistent(views: Views) -> str:
    if _was_planned(views.persistent, views):
        return _changed(views)
    if views.persistent == views.live:
        return of_live(views)
    if views.claimed is None and views.live != views.planned:
        return NOT_PLACED
    if _is_new(views.persistent, views):
        return NEW_IOTHREAD
    if views.persistent is None:
        return "the definition was written anew without a pin (`virsh define`, an orchestrator)"
    only = " only: the live XML is right" if views.live == views.planned else ""
    return f"`virsh {views.command} --config`{only}, or the definition was written anew"


def _was_planned(cpus: Cpus | None, views: Views) -> bool:
    return cpus is not None and cpus == views.claimed != views.planned


def _changed(views: Views) -> str:
    return f"{views.change or OTHER_REASONS}: the plan has changed"
