"""Records a pin in libvirt's own definitions, from a process that libvirt does not wait for.

`virDomainPinEmulator`: LIVE, and CONFIG for a persistent guest, once the guest's job is free. Who carries out orders is
the recording process (see `recorder`), and `emupin apply`.
"""

from __future__ import annotations

import os

from emupin import __version__
from emupin.base import cpuset
from emupin.base.errors import BusyError, EmupinError, HostError, RecordError
from emupin.base.frozen import Frozen
from emupin.base.log import log
from emupin.base.text import printable
from emupin.guest.domainxml import read
from emupin.node import bookfile, former, libvirtd
from emupin.node.definition import settle_definition
from emupin.node.former import LIVE, PERSISTENT
from emupin.order import SHUT_OFF
from emupin.trail import entries, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    import libvirt

    from emupin.base.jsonline import Json
    from emupin.guest.domain import Domain
    from emupin.order import Order
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

CONNECT_SECONDS = 60.0
"""How long a libvirtd that restarts may take to answer."""
HURRIED_SECONDS = 10.0
"""The same, and how long to wait for a guest that is busy, where somebody waits at a terminal."""


def record_audited(root: str, order: Order, policy: Policy | None, hurried: bool = False) -> dict[str, Recorded]:
    """`record`, and its outcome in the audit trail and in syslog. Raises EmupinError.

    That a guest is busy is an outcome only for who is `hurried`; all others ask again.
    """
    try:
        done = record(root, order, policy, hurried)
        if order.vhost and order.cpus and "live" in done:
            _part_vhost(root, order, order.cpus, done["live"].name)
    except EmupinError as error:
        if hurried or not isinstance(error, BusyError):
            report(root, order, "failed", str(error), {})
        raise
    if done:
        report(root, order, "recorded", "; ".join(f"{kind} definition: {one.why}" for kind, one in done.items()), done)
    return done


def _part_vhost(root: str, order: Order, cpus: frozenset[int], name: str) -> None:
    """Put the vhost workers where they belong again: libvirt has narrowed the cgroup that they share.

    Raises HostError, DomainError, EnforceError.
    """
    from emupin.guest.threads import check_process, read_status_file
    from emupin.node.enforce import enforce

    status = read_status_file(root, name)
    check_process(root, status.pid, order.uuid)
    enforce(root, status, cpus, os.sched_setaffinity, order.follow_iothreads, cpuset.parse(order.vhost))


def report(root: str, order: Order, outcome: str, reason: str, done: dict[str, Recorded]) -> None:
    """One line to syslog, one to the audit trail."""
    first = next(iter(done.values()), None)
    name = first.name if first else None
    log(root, f"{name or order.uuid}: record: {reason}", outcome == "failed")
    entry: dict[str, Json] = {
        "time": entries.now(),
        "host": os.uname().nodename,
        "op": "record",
        "uuid": order.uuid,
        "name": name,
        "rule": order.rule or (first.rule if first else None),
        "placement": order.placement or (first.placement if first else None),
        "before": first.before if first else None,
        "after": first.after if first else cpuset.text(order.cpus),
        "reason": printable(reason),
        "warnings": [],
        "outcome": outcome,
        "diff": [
            f"{sign}{kind}: {pin}" for kind, one in done.items() for sign, pin in (("-", one.before), ("+", one.after))
        ],
        "policy": order.policy,
        "emupin": __version__,
    }
    try:
        writer.append(root, entry)
    except HostError as error:
        log(root, f"{order.uuid}: record: {error}", trouble=True)


class Recorded(Frozen):
    """A definition that was changed."""

    name: str
    """The guest's."""
    before: str | None
    """The pin that it had."""
    after: str | None
    why: str
    rule: str | None = None
    """Of its own plan, like `placement`; None for the live definition, whose are ordered."""
    placement: str | None = None


def record(root: str, order: Order, policy: Policy | None, hurried: bool = False) -> dict[str, Recorded]:
    """Make libvirt's live definition say what is ordered, and the persistent one what its own plan says; those that
    did not.

    A guest that is gone, or runs anew, has nothing to record. Who is `hurried` waits a little for a guest that is busy.
    Raises BusyError, other EmupinErrors.
    """
    libvirt = libvirtd.bindings()
    try:
        domain = libvirtd.connect(HURRIED_SECONDS if hurried else CONNECT_SECONDS).lookupByUUIDString(order.uuid)
        libvirtd.wait_until_free(domain, HURRIED_SECONDS if hurried else 0)
        if order.domain_id != SHUT_OFF and domain.ID() != int(order.domain_id):
            return {}
        done: dict[str, Recorded] = {}
        book = _Book(root, order.uuid)
        if order.domain_id != SHUT_OFF and order.cpus is not None:
            done.update(libvirtd.change(lambda: _record_live(domain, order, book), LIVE))
        if order.persist and policy and domain.isPersistent():
            done.update(libvirtd.change(lambda: _record_persistent(domain, root, policy, book), PERSISTENT))
        if done:
            book.tidy(domain)
        return done
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return {}  # It has stopped meanwhile.
        raise RecordError(
            libvirtd.URI, str(error), "the threads are placed, but libvirt's XML does not record it"
        ) from None


class _Book(Frozen):
    """Where what stood in a guest's definitions before is kept."""

    root: str
    uuid: str

    def remember(self, kind: str, guest: Domain, cpus: Cpus | None, iothreads: Sequence[int]) -> None:
        """Raises HostError where a definition that outlives the guest could not be put back."""
        there = former.pins_of(guest)
        ours = dict.fromkeys([former.EMULATOR, *map(str, iothreads)], cpuset.text(cpus))
        try:
            former.remember(self.root, self.uuid, kind, there, ours, former.run_of(self.root, guest.name))
        except HostError as error:
            if kind != LIVE:
                raise
            log(self.root, f"{guest.name}: record: {error}", trouble=True)  # The live one ends with the guest.

    def tidy(self, domain: libvirt.virDomain) -> None:
        """Forget guests that libvirt does not know any more. Raises libvirtError."""
        known = frozenset(each.UUIDString() for each in domain.connect().listAllDomains())
        try:
            former.keep_only(self.root, known | {self.uuid})
        except HostError as error:
            log(self.root, f"{self.uuid}: record: {error}", trouble=True)


def _record_live(domain: libvirt.virDomain, order: Order, book: _Book) -> Recorded | None:
    """Pin in the live definition, unless it says so already, or something else was decided while the order waited.

    Raises libvirtError, EmupinError.
    """
    import libvirt

    guest, cpus = read(domain.XMLDesc(0).encode(), "live definition"), order.cpus or frozenset()
    if not bookfile.stands(book.root, order.uuid, cpus):
        log(book.root, f"{guest.name}: record: decided anew meanwhile, the order for {cpuset.format(cpus)} is void")
        return None
    return _pin(domain, guest, cpus, order.follow_iothreads, (LIVE, libvirt.VIR_DOMAIN_AFFECT_LIVE), book)


def _record_persistent(domain: libvirt.virDomain, root: str, policy: Policy, book: _Book) -> Recorded | None:
    """Pin in the persistent definition as its own plan says, or take an impossible pin out.

    Raises libvirtError, EmupinError.
    """
    import libvirt

    guest = read(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode(), "persistent definition", policy.sections())
    settled = settle_definition(root, policy, guest)
    if not settled.plan.persist or not settled.differs(guest):
        return None
    if settled.pin is not None:
        kind = PERSISTENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        done = _pin(domain, guest, settled.pin, settled.plan.follow_iothreads, kind, book)
        return done and done.replace(rule=settled.plan.rule, placement=settled.plan.placement)
    libvirtd.take_out(domain, settled.removed)
    why = f"its pin was taken out, libvirt cannot start the guest with it: {settled.obstacle}"
    return Recorded(guest.name, cpuset.text(guest.emulatorpin), None, why, settled.plan.rule, settled.plan.placement)


def _pin(
    domain: libvirt.virDomain, guest: Domain, cpus: Cpus, follow: bool, kind: tuple[str, int], book: _Book
) -> Recorded | None:
    """Pin in a definition, of a kind and with the flags to change it, unless it says so already."""
    iothreads = [each for each in guest.iothreads if follow and guest.iothreadpins.get(each) != cpus]
    if guest.emulatorpin == cpus and not iothreads:
        return None
    book.remember(kind[0], guest, cpus, iothreads)
    libvirtd.pin(domain, cpus if guest.emulatorpin != cpus else None, dict.fromkeys(iothreads, cpus), kind[1])
    why = f"had another pin, now it has {cpuset.format(cpus)}"
    return Recorded(guest.name, cpuset.text(guest.emulatorpin), cpuset.text(cpus), why)
