"""Brings guests in line: live threads, libvirt's live XML and its persistent one, whether they run or are shut off.

To mend is the hook's own path: `decide`, with its claim, `enforce`, then the record through libvirt. A look before
says what is out of line, and a look afterwards proves that nothing is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.errors import EmupinError, HostError
from emupin.base.files import DEFINITIONS
from emupin.base.log import log
from emupin.guest.threads import check_process
from emupin.live import facts
from emupin.live.alignment import expect, is_running, live_xml, look, read_file, stored_edits
from emupin.live.drift import LIVE, PERSISTENT, UNKNOWN
from emupin.node.decision import decide
from emupin.node.definition import settle_as
from emupin.node.enforce import Enforced, enforce
from emupin.order import SHUT_OFF, Order, order_for
from emupin.policy.values import KEEP
from emupin.recording import Recorded
from emupin.trail import entries, writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Status
    from emupin.live.alignment import Look, Request
    from emupin.live.facts import Facts
    from emupin.node.decision import Decision

    Cpus = frozenset[int]

IN_LINE, OUT_OF_LINE, MENDED, LEFT_ALONE, NOT_NOW, ENDED, FAILED = (
    "in sync", "drifted", "fixed", "left alone", "cannot be placed now", "ended", "failed",
)  # fmt: skip
"""What becomes of a guest. NOT_NOW is for one that is shut off: it holds no CPU, and its next start decides again."""

ROUNDS = 3
"""The hook, or somebody with `virsh`, may change a guest at the same time: how often to begin anew."""


@dataclass(frozen=True)
class Means:
    """What changes the world: `os.sched_setaffinity`, and the record in libvirt's definitions."""

    set_affinity: Callable[[int, Cpus], None]
    record: Callable[[str, Order], Mapping[str, Recorded]]


@dataclass
class Done:
    """What was changed so far."""

    groups: int = 0
    moved: set[int] = field(default_factory=set)
    recorded: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    left: dict[int, str] = field(default_factory=dict)
    """Threads that nobody can put elsewhere, and why, by thread id."""


@dataclass(frozen=True)
class Result:
    """One guest, what was out of line, and what was done about it."""

    name: str
    state: str
    seen: Look | None
    """As it was found."""
    done: Done
    error: str = ""


def apply(request: Request, names: Sequence[str], means: Means | None) -> Iterator[Result]:
    """What came of each guest; `means` None changes nothing. One guest's trouble stops no other."""
    shared = facts.of_machine(request.root, request.policy)

    def read() -> Facts:
        return facts.of_machine(request.root, request.policy) if means else shared

    for name in names:
        yield _one(request, name, read, means)


def _one(request: Request, name: str, read: Callable[[], Facts], means: Means | None) -> Result:
    seen, done = None, Done()
    try:
        around = read()
        seen = look(request, name, around)
        done.warnings = seen.plan.warnings + _no_place(seen)
        if not seen.ours or (request.drift_only and seen.plan.drift == KEEP):
            return Result(name, LEFT_ALONE, seen, done)
        if means is None:
            expect(around, seen)
            if seen.plan.failed and seen.running:
                raise EmupinError("", seen.plan.reason, "change its pins or the policy")
        else:
            mend(request, name, read, means, done)
    except EmupinError as error:
        return Result(name, FAILED if _is_there(request.root, name) else ENDED, seen, done, str(error))
    return Result(name, _state(seen, done, means is None), seen, done)


def _state(seen: Look, done: Done, is_dry: bool) -> str:
    if seen.drifts or done.moved or done.recorded:
        return OUT_OF_LINE if is_dry else MENDED
    return NOT_NOW if seen.plan.failed else IN_LINE


def _no_place(seen: Look) -> tuple[str, ...]:
    """A warning of a guest that is shut off and has no place now."""
    if seen.running or not seen.plan.failed:
        return ()
    return (f"{seen.plan.reason}; its next start decides again",)


def _is_there(root: str, name: str) -> bool:
    return is_running(root, name) or os.path.exists(f"{root}{DEFINITIONS}/{name}.xml")


def mend(request: Request, name: str, read_facts: Callable[[], Facts], means: Means, done: Done) -> Look:
    """Bring one guest in line; what it looks like then. What was `done` counts also where it ends in an error.

    Raises EmupinError where the guest is not in line afterwards.
    """
    for _ in range(ROUNDS):
        seen = look(request, name, read_facts())
        if not seen.ours:
            return seen
        _mend_once(request, name, seen, means, done)
        seen = look(request, name, read_facts())
        drifts = [each for each in seen.drifts if each.tid not in done.left]
        if not drifts and not (seen.running and seen.plan.failed):
            done.warnings += tuple(done.left.values())
            return seen
    left = "; ".join(f"{each.what} on {cpuset.format(each.found or ()) or 'nothing'}" for each in drifts)
    raise HostError(f"guest {name}", f"has drifted again: {left or seen.plan.reason}", "find out what else changes it")


def _mend_once(request: Request, name: str, seen: Look, means: Means, done: Done) -> None:
    """Decide anew, from what holds now, and act. Trouble goes into the audit trail, and on. Raises EmupinError."""
    decision, enforced = None, Enforced(0, ())
    try:
        if seen.running:
            data, status = live_xml(request.root, name)
            check_process(request.root, status.pid, status.domain.uuid or "")
            decision = _decide(request, name, data)
            enforced = _enforce(request, decision, status, means, done)
            order = order_for(decision.plan, status, decision.policy.digest)
        else:
            path = f"{request.root}{DEFINITIONS}/{name}.xml"
            decision = _decide_shut_off(request, name, read_file(path))
            _audit_rewritten(request, decision)
            order = _order_for_shut_off(decision)
        done.warnings = decision.warnings(told=request.problems) + _no_place(seen)
    except EmupinError as error:
        _report(request.root, name, decision, error)
        raise
    if _is_unrecorded(seen, order):
        done.recorded += [each for each in means.record(request.root, order) if each not in done.recorded]
    try:
        enforced.check(name, decision.plan.cpus or frozenset())
    except EmupinError as error:
        _report(request.root, name, decision, error)
        raise


def _report(root: str, name: str, decision: Decision | None, error: EmupinError) -> None:
    _put(root, entries.failure("apply", "failed", name, decision, str(error)))
    log(root, f"apply: {error}", trouble=True)


def _is_unrecorded(seen: Look, order: Order) -> bool:
    """libvirt need not be asked where its files say what is ordered: apply works without libvirt-python then."""
    pinned = all(each.where not in (LIVE, PERSISTENT) for each in seen.drifts)
    as_seen = not seen.running or seen.plan.pin == order.cpus
    return not (pinned and as_seen) or (order.persist and seen.persistence == UNKNOWN)


def _decide(request: Request, name: str, data: bytes) -> Decision:
    decision = decide(request.root, request.policy, data, f"domain XML of {name}", request.problems)
    if decision.plan.failed:
        raise HostError(f"guest {name}", decision.plan.reason, "change its pins or the policy")
    return decision


def _decide_shut_off(request: Request, name: str, data: bytes) -> Decision:
    """A guest that does not run holds no CPU, and need not get one: its next start decides."""
    return decide(request.root, request.policy, data, f"domain XML of {name}", request.problems, tentative=True)


def _order_for_shut_off(decision: Decision) -> Order:
    made, guest = decision.plan, decision.guest
    origin = made.rule or "", made.placement or "", decision.policy.digest
    return Order(guest.uuid or "", SHUT_OFF, None, made.persist, made.follow_iothreads, *origin)


def _enforce(request: Request, decision: Decision, status: Status, means: Means, done: Done) -> Enforced:
    cpus = decision.plan.cpus
    if cpus is None:
        return Enforced(0, ())
    enforced = enforce(
        request.root, status, cpus, means.set_affinity, decision.plan.follow_iothreads, decision.plan.vhost
    )
    done.groups += enforced.groups
    done.moved.update(enforced.moved)
    done.left = {each.thread.tid: str(each) for each in enforced.left if each.excused}
    changed = enforced.groups or enforced.moved
    if not enforced.failed:
        _put(request.root, entries.entry("apply", "enforced" if changed else "unchanged", decision, [], enforced.left))
    if changed:
        log(request.root, f"{decision.guest.name}: apply: emulator threads moved to {cpuset.format(cpus)}")
    return enforced


def _audit_rewritten(request: Request, decision: Decision) -> None:
    settled = settle_as(request.root, decision.guest, decision.plan, decision.host)
    changes = stored_edits(decision.data, decision.guest, settled) if decision.plan.persist else []
    _put(request.root, entries.entry("apply", "rewritten" if changes else "unchanged", decision, changes))


def _put(root: str, entry: dict[str, Json]) -> None:
    """A trail that cannot be written to costs no guest its CPUs: syslog has it."""
    try:
        writer.append(root, entry)
    except HostError as error:
        log(root, f"apply: {error}", trouble=True)
