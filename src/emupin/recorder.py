"""Records a pin in libvirt's own definitions, from a process that outlives the hook.

The hook has started it (see `order`). It waits until the guest's job is free: at once after a start, after many minutes
for an incoming migration. Then `virDomainPinEmulator`: LIVE, and CONFIG for a persistent guest.
"""

from __future__ import annotations

import errno
import os
import time

from emupin import __version__
from emupin.base import cpuset, files
from emupin.base.errors import DomainError, HostError, RecordError
from emupin.base.frozen import Frozen
from emupin.base.log import log
from emupin.base.text import printable
from emupin.guest.domainxml import read
from emupin.order import SHUT_OFF, Order
from emupin.trail import entries, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import libvirt

    from emupin.base.jsonline import Json

URI = "qemu:///system"
WAIT_SECONDS = 3600.0
"""How long an incoming migration may take before the recording is given up."""
TRIES = 20
"""How often to ask for a job that somebody else holds."""
CONNECT_SECONDS = 60.0
"""How long a libvirtd that restarts may take to answer."""
HURRIED_SECONDS = 10.0
"""The same, and how long a guest may be starting or coming in, where somebody waits at a terminal."""


def main(uuid: str, domain_id: str, cpus: str, persist: str, follow: str, *origin: str) -> None:
    """The recording process; `origin` is the rule, the placement and the policy's digest."""
    _close_inherited()
    root = files.root_from_environment()
    order = Order(uuid, domain_id, cpuset.parse(cpus), persist == "yes", follow == "yes", *origin)
    try:
        record_audited(root, order)
    except (RecordError, DomainError):
        return  # It is in the trail and in syslog: nobody else listens.


def record_audited(root: str, order: Order, hurried: bool = False) -> dict[str, Recorded]:
    """`record`, and what came of it in the audit trail and in syslog. Raises RecordError, DomainError."""
    try:
        done = record(order, hurried)
    except (RecordError, DomainError) as error:
        _report(root, order, "failed", str(error), {})
        raise
    if done:
        definitions = " and the ".join(done)
        _report(root, order, "recorded", f"the {definitions} definition had another pin", done)
    return done


def _close_inherited() -> None:
    """Close what is open above stderr: whoever calls the hook may have left a copy of its output there."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if int(descriptor) > 2:
                os.close(int(descriptor))
        except OSError as error:
            if error.errno != errno.EBADF:  # The listing's own.
                raise


def _report(root: str, order: Order, outcome: str, reason: str, done: dict[str, Recorded]) -> None:
    """One line to syslog, one to the audit trail."""
    first = next(iter(done.values()), None)
    name, after = first.name if first else None, cpuset.format(order.cpus)
    trouble = outcome == "failed"
    log(root, f"{name or order.uuid}: record: {reason}" + ("" if trouble else f", now it says {after}"), trouble)
    entry: dict[str, Json] = {
        "time": entries.now(),
        "host": os.uname().nodename,
        "op": "record",
        "uuid": order.uuid,
        "name": name,
        "rule": order.rule,
        "placement": order.placement,
        "before": first.before if first else None,
        "after": after,
        "reason": printable(reason),
        "warnings": [],
        "outcome": outcome,
        "diff": [
            f"{sign}{kind}: {pin}" for kind, one in done.items() for sign, pin in (("-", one.before), ("+", after))
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


def record(order: Order, hurried: bool = False) -> dict[str, Recorded]:
    """Make libvirt's live and persistent definition say what is ordered; those that did not.

    A guest that is gone, or runs anew, has nothing to record. Who is `hurried` does not wait for a migration to end.
    Raises RecordError, DomainError.
    """
    try:
        import libvirt
    except ImportError:
        hint = "install python3-libvirt: until then libvirt's own definitions do not have the pin"
        raise RecordError("libvirt-python", "is not installed", hint) from None
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        domain = _connect(HURRIED_SECONDS if hurried else CONNECT_SECONDS).lookupByUUIDString(order.uuid)
        _wait_until_free(domain, HURRIED_SECONDS if hurried else WAIT_SECONDS)
        if domain.ID() != int(order.domain_id):
            return {}
        done: dict[str, Recorded] = {}
        tries = 1 if hurried else TRIES
        if order.domain_id != SHUT_OFF:
            done.update(_pin(domain, order, "live", (0, libvirt.VIR_DOMAIN_AFFECT_LIVE), tries))
        if order.persist and domain.isPersistent():
            flags = libvirt.VIR_DOMAIN_XML_INACTIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
            done.update(_pin(domain, order, "persistent", flags, tries))
        return done
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return {}  # It has stopped meanwhile.
        raise RecordError(URI, str(error), "the threads are placed, only libvirt's XML does not say so") from None


def _connect(seconds: float) -> libvirt.virConnect:
    """A connection; libvirtd answers nobody until it has called `reconnect` for every guest."""
    import libvirt

    deadline = time.monotonic() + seconds
    while True:
        try:
            return libvirt.open(URI)
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _wait_until_free(domain: libvirt.virDomain, seconds: float) -> None:
    """Wait while the guest is starting or coming in; a call would hold one of libvirtd's workers for 30 s and fail.

    Raises RecordError after so many `seconds`.
    """
    import libvirt

    busy = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    deadline, pause = time.monotonic() + seconds, 0.02
    while True:
        state, reason = domain.state()
        if state != libvirt.VIR_DOMAIN_PAUSED or reason not in busy:
            return
        if time.monotonic() > deadline:
            raise RecordError(URI, f"the guest was busy for {seconds / 60:.2g} minutes", "`virsh emulatorpin` does it")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _pin(
    domain: libvirt.virDomain, order: Order, kind: str, both_flags: tuple[int, int], tries: int
) -> dict[str, Recorded]:
    """Pin in one definition, unless it says so already; the flags are those to read it and to change it.

    Raises libvirtError, RecordError, DomainError.
    """
    import libvirt

    xml_flags, flags = both_flags
    cpus = tuple(cpu in order.cpus for cpu in range(max(order.cpus) + 1))
    for _ in range(tries):
        guest = read(domain.XMLDesc(xml_flags).encode(), f"{kind} definition")
        iothreads = [each for each in guest.iothreads if order.follow and guest.iothreadpins.get(each) != order.cpus]
        if guest.emulatorpin == order.cpus and not iothreads:
            return {}
        try:
            if guest.emulatorpin != order.cpus:
                domain.pinEmulator(cpus, flags)
            for iothread in iothreads:
                domain.pinIOThread(iothread, cpus, flags)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT:
                raise
            continue  # Somebody else had the job for 30 s.
        return {kind: Recorded(guest.name, cpuset.format(guest.emulatorpin) if guest.emulatorpin else None)}
    busy = f"the {kind} definition was busy {tries} times for 30 s"
    raise RecordError(URI, busy, "`virsh emulatorpin` does it")
