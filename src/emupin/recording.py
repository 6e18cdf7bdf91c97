"""Records a pin in libvirt's own definitions, from a process that libvirt does not wait for.

`virDomainPinEmulator`: LIVE, and CONFIG for a persistent guest, once the guest's job is free. Who carries out orders is
the recording process (see `recorder`), and `emupin apply`.
"""

from __future__ import annotations

import contextlib
import os

from emupin import __version__
from emupin.base import cpuset
from emupin.base.errors import BusyError, EmupinError, HostError, RecordError
from emupin.base.frozen import Frozen
from emupin.base.log import log
from emupin.base.text import printable
from emupin.engine.definition import NO_MORE
from emupin.guest.domain import EMULATOR, element
from emupin.guest.domainxml import read
from emupin.node import bookfile, former, libvirtd
from emupin.node.definition import settle_definition
from emupin.node.former import LIVE, PERSISTENT
from emupin.node.guestfiles import name_of
from emupin.order import SHUT_OFF
from emupin.trail import entries, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    import libvirt

    from emupin.base.jsonline import Json
    from emupin.engine.definition import Settled
    from emupin.guest.domain import Domain
    from emupin.node.former import Pins
    from emupin.order import Order
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

CONNECT_SECONDS = 60.0
"""How long a libvirtd that restarts may take to answer."""
HURRIED_SECONDS = 10.0
"""The same, and how long to wait for a guest that is busy, where somebody waits at a terminal."""


def record_audited(root: str, order: Order, policy: Policy | None, hurried: bool = False) -> dict[str, Recorded]:
    """`record`, and its outcome in the audit trail and in syslog. Raises EmupinError.

    That a guest is busy is an outcome only for who is `hurried`; all others ask again. What was done before is one.
    """
    done: dict[str, Recorded] = {}
    try:
        record(root, order, policy, done, hurried)
    except EmupinError as error:
        _report_done(root, order, done)
        if hurried or not isinstance(error, BusyError):
            report(root, order, "failed", str(error), {})
        raise
    _report_done(root, order, done)
    return done


def _report_done(root: str, order: Order, done: dict[str, Recorded]) -> None:
    if done:
        report(root, order, "recorded", "; ".join(f"{kind} definition: {one.why}" for kind, one in done.items()), done)


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
    name = first.name if first else name_of(root, order.uuid)
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
        "diff": [line for kind, one in done.items() for line in former.diff(kind, one.changes)],
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
    changes: Mapping[str, tuple[str | None, str | None]] = {}
    """All pins, each from one to another, by their keys in Pins."""


def record(root: str, order: Order, policy: Policy | None, done: dict[str, Recorded], hurried: bool = False) -> None:
    """Make libvirt's live definition say what is ordered, and the persistent one what its own plan says.

    `done` takes those that did not: it counts also where the other one ends in an error. A guest that is gone, or runs
    anew, has nothing to record. Who is `hurried` waits a little for a guest that is busy. Raises BusyError, other
    EmupinErrors.
    """
    libvirt, connection = libvirtd.bindings(), None
    with contextlib.ExitStack() as afterwards:
        try:
            connection = libvirtd.connect(HURRIED_SECONDS if hurried else CONNECT_SECONDS)
            domain = connection.lookupByUUIDString(order.uuid)
            libvirtd.wait_until_free(domain, HURRIED_SECONDS if hurried else 0)
            if order.domain_id != SHUT_OFF and domain.ID() != int(order.domain_id):
                return
            book = _Book(root, order.uuid)
            if order.domain_id != SHUT_OFF and order.cpus is not None:
                done.update(libvirtd.change(lambda: _record_live(domain, order, book, afterwards), LIVE))
            if order.persist and policy and domain.isPersistent():
                done.update(libvirtd.change(lambda: _record_persistent(domain, root, policy, book), PERSISTENT))
            if done:
                book.tidy(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                afterwards.pop_all()  # It has stopped meanwhile.
                return
            if connection and libvirtd.has_gone(error):
                raise BusyError(libvirtd.URI, str(error), libvirtd.later(libvirtd.APPLY)) from None
            raise RecordError(
                libvirtd.URI, str(error), "the threads are placed, but libvirt's XML does not record it"
            ) from None


class _Book(Frozen):
    """Where what stood in a guest's definitions before is kept."""

    root: str
    uuid: str

    def remember(self, kind: str, guest: Domain, ours: Pins) -> None:
        """Raises HostError where a definition that outlives the guest could not be put back."""
        run = former.run_of(self.root, guest.name)
        try:
            former.remember(self.root, self.uuid, kind, former.pins_of(guest), ours, run)
        except HostError as error:
            if kind != LIVE:
                raise
            log(self.root, f"{guest.name}: record: {error}", trouble=True)  # The live one ends with the guest.

    def confirm(self, kind: str) -> None:
        """libvirt has taken what was remembered: a pin of ours from before may be somebody's from now on."""
        try:
            former.confirm(self.root, self.uuid, kind)
        except HostError as error:
            log(self.root, f"{self.uuid}: record: {error}", trouble=True)

    def tidy(self, domain: libvirt.virDomain) -> None:
        """Forget guests that libvirt does not know any more. Raises libvirtError."""
        known = frozenset(each.UUIDString() for each in domain.connect().listAllDomains())
        try:
            former.keep_only(self.root, known | {self.uuid})
        except HostError as error:
            log(self.root, f"{self.uuid}: record: {error}", trouble=True)


def _record_live(
    domain: libvirt.virDomain, order: Order, book: _Book, afterwards: contextlib.ExitStack
) -> Recorded | None:
    """Pin in the live definition, unless it says so already, or something else was decided while the order waited.

    Once libvirt was asked, vhost workers that are apart are put back `afterwards`, whatever comes of it.

    Raises libvirtError, EmupinError.
    """
    import libvirt

    guest, cpus = read(domain.XMLDesc(0).encode(), "live definition"), order.cpus or frozenset()
    if not bookfile.stands(book.root, order.uuid, cpus):
        log(book.root, f"{guest.name}: record: decided anew meanwhile, the order for {cpuset.format(cpus)} is void")
        return None
    pins = guest.differing(cpus, order.follow_iothreads)
    if not pins:
        return None
    if order.vhost:
        afterwards.callback(_part_vhost, book.root, order, cpus, guest.name)
    return _change(domain, guest, pins, (LIVE, libvirt.VIR_DOMAIN_AFFECT_LIVE), book, _changed_to(cpus, _first(pins)))


def _record_persistent(domain: libvirt.virDomain, root: str, policy: Policy, book: _Book) -> Recorded | None:
    """Pin in the persistent definition as its own plan says, or have an impossible pin give way to what was before.

    Raises libvirtError, EmupinError.
    """
    import libvirt

    guest = read(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode(), "persistent definition", policy.sections())
    settled = settle_definition(root, policy, guest)
    pins = settled.changes(guest)
    if not pins or (settled.plan.decides and not settled.plan.persist):
        return None
    done = _change(domain, guest, pins, (PERSISTENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG), book, _told(settled, pins))
    return done.replace(rule=settled.plan.rule, placement=settled.plan.placement)


def _told(settled: Settled, pins: Mapping[str, Cpus | None]) -> str:
    """What is told of `pins` that change in a definition as it was `settled`, and why."""
    key = _first(pins)
    if key not in settled.leaving:
        return _changed_to(pins[key], key)
    if settled.reasons[key] == NO_MORE:
        return f"{NO_MORE}: their pins gave way to what stood there before"
    before = settled.leaving[key]
    what = f"gave way to what stood there before ({cpuset.format(before)})" if before else "was taken out"
    return f"its {'pin' if key == EMULATOR else element(key)} {what}, {settled.reasons[key]}"


def _first(pins: Mapping[str, Cpus | None]) -> str:
    """Whose pin is told: the emulator's, where it is among them."""
    return EMULATOR if EMULATOR in pins else next(iter(pins))


def _changed_to(cpus: Cpus | None, key: str) -> str:
    whose = "" if key == EMULATOR else f"iothread{key} "
    return f"{whose}had another pin, now it has {cpuset.format(cpus or ())}"


def _change(
    domain: libvirt.virDomain,
    guest: Domain,
    pins: Mapping[str, Cpus | None],
    kind: tuple[str, int],
    book: _Book,
    why: str,
) -> Recorded:
    """Make a definition, of a kind and with the flags to change it, say `pins`. Raises libvirtError, EmupinError."""
    ours = {key: cpuset.text(cpus) for key, cpus in pins.items()}
    book.remember(kind[0], guest, ours)
    libvirtd.change_pins(domain, pins, kind[1])
    book.confirm(kind[0])
    there = former.pins_of(guest)
    changes = {key: (there.get(key), pin) for key, pin in ours.items()}
    before = there.get(EMULATOR)
    return Recorded(guest.name, before, ours.get(EMULATOR, before), why, changes=changes)
