"""One guest against its plan, running or shut off: what is out of line, and how libvirt's XML would change.

For a running guest it is the same assessment as `status`; nothing is locked, claimed or changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emupin.base.errors import HostError, hint
from emupin.base.files import DEFINITIONS, LIBVIRT_RUN, read_bytes
from emupin.engine.plan import plan
from emupin.engine.situation import cpus_that_matter
from emupin.guest import domainxml, splice, statusxml
from emupin.guest.domain import element
from emupin.live import observe
from emupin.live.drift import DEFINED, LIVE, PERSISTENT, Drift
from emupin.node.definition import settle_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.engine.definition import Settled
    from emupin.engine.plan import Plan
    from emupin.guest.domain import Domain, Status
    from emupin.guest.splice import Edit
    from emupin.live.facts import Facts
    from emupin.policy.values import Policy

    Cpus = frozenset[int]


@dataclass(frozen=True)
class Request:
    """What guests are looked at by: the host's root folder, the policy, and what is wrong with the policy's file."""

    root: str
    policy: Policy
    problems: tuple[str, ...] = ()
    drift_only: bool = False
    """Only guests are brought in line whose rule says `drift: fix`."""


@dataclass(frozen=True)
class Look:
    """One guest, and what is out of line; the diffs are lines of `<cputune>`, by LIVE and PERSISTENT."""

    guest: Domain
    running: bool
    plan: Plan
    drifts: tuple[Drift, ...] = ()
    diffs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    persistence: str = DEFINED

    @property
    def ours(self) -> bool:
        """A rule takes the guest, and does not keep it as it is."""
        return self.plan.decides


def is_running(root: str, name: str) -> bool:
    return os.path.exists(f"{root}{LIBVIRT_RUN}/{name}.xml")


def look(request: Request, name: str, facts: Facts) -> Look:
    """What is out of line with the guest `name`; nothing is changed. Raises HostError, DomainError."""
    if not is_running(request.root, name):
        return _look_shut_off(request, name, facts)
    found = observe.observe(request.root, name, request.policy, facts).assessment
    diffs, pin = {}, found.plan.pin
    if pin is not None and (diff := _live_diff(live_xml(request.root, name)[0], pin, found.plan.follow_iothreads)):
        diffs[LIVE] = diff
    settled = found.live.settled
    if settled and settled.plan.persist and settled.plan.decides:
        stored = _stored_diff(read_file(f"{request.root}{DEFINITIONS}/{name}.xml"), settled)
        diffs.update({PERSISTENT: stored} if stored else {})
    return Look(found.guest, True, found.plan, found.drifts, diffs, found.persistence)


def expect(facts: Facts, seen: Look) -> None:
    """Take the plan of a running guest into account for the guests after it, as its claim would be; nothing is kept."""
    if facts.ledger and seen.running and seen.plan.cpus is not None and seen.guest.uuid:
        plan = seen.plan
        facts.ledger.claim(seen.guest.uuid, seen.plan.cpus, plan.dedicated, plan.vhost, plan.vhost_dedicated)


def _look_shut_off(request: Request, name: str, facts: Facts) -> Look:
    """A guest that does not run has its persistent definition alone."""
    path = f"{request.root}{DEFINITIONS}/{name}.xml"
    data = read_file(path)
    guest = domainxml.read(data, path, request.policy.sections())
    wanted = cpus_that_matter(guest, request.policy, facts.host)
    others = facts.ledger.others(guest.uuid, wanted) if facts.ledger else facts.held
    settled = settle_as(request.root, guest, plan(guest, request.policy, facts.host, others), facts.host)
    if not settled.plan.persist or not settled.changes(guest):
        return Look(guest, False, settled.plan)
    diff = _stored_diff(data, settled)
    return Look(guest, False, settled.plan, tuple(_stored_drifts(guest, settled)), {PERSISTENT: diff} if diff else {})


def _stored_drifts(guest: Domain, settled: Settled) -> Iterator[Drift]:
    cause, there = "not recorded since the guest was defined, or the plan has changed", guest.pins
    for key, pin in settled.changes(guest).items():
        yield Drift(PERSISTENT, element(key), pin, there.get(key), settled.reasons.get(key, cause))


def _stored_diff(data: bytes, settled: Settled) -> tuple[str, ...]:
    guest = domainxml.read(data, "definition", frozenset())
    return _diff(data, guest, stored_edits(data, guest, settled))


def stored_edits(data: bytes, guest: Domain, settled: Settled) -> list[Edit]:
    """What makes the definition `data`, which `guest` was read from, say what was `settled`."""
    edits, plan = splice.give_way(data, guest, settled.leaving), settled.plan
    return edits if plan.pin is None else [*edits, *splice.edits(data, guest, plan.pin, plan.follow_iothreads)]


def _live_diff(data: bytes, pin: Cpus, follow: bool) -> tuple[str, ...]:
    guest = domainxml.read(data, "definition", frozenset())
    return _diff(data, guest, splice.edits(data, guest, pin, follow))


def _diff(data: bytes, guest: Domain, edits: list[Edit]) -> tuple[str, ...]:
    return tuple(splice.cputune_diff(data, guest, edits)) if edits else ()


def live_xml(root: str, name: str) -> tuple[bytes, Status]:
    """The `<domain>` in libvirt's status file of a running guest, and all that the file says.

    Raises HostError, DomainError.
    """
    path = f"{root}{LIBVIRT_RUN}/{name}.xml"
    data = read_file(path)
    status = statusxml.read(data, path, frozenset())
    if not status.pid:
        raise HostError(path, "names no process", "the guest may still be starting")
    end = b"</domain>"
    return data[status.domain.layout.domain.start : data.rindex(end) + len(end)], status


def read_file(path: str) -> bytes:
    """Raises HostError."""
    try:
        return read_bytes(path)
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", hint(error, "the guest may have ended")) from None
