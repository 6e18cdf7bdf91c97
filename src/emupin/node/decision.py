"""One decision on a live host: from what, what came of it, and the claim that goes with it.

The hook and `emupin apply` decide here; what they do with the decision differs.
"""

from __future__ import annotations

from emupin.base.digest import hex_digest
from emupin.base.errors import HostError
from emupin.base.files import LIBVIRT_RUN, read_bytes
from emupin.base.frozen import Frozen
from emupin.base.kept import TOPOLOGIES_KEPT, keep
from emupin.base.system import os
from emupin.engine import interrupts
from emupin.engine.host import canonical
from emupin.engine.hostcache import read_cached
from emupin.engine.plan import plan
from emupin.engine.situation import cpus_that_matter
from emupin.engine.startable import stuck
from emupin.guest.domainxml import read
from emupin.node.claims import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.engine.situation import Others
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy


class Decision(Frozen):
    """What was decided for one domain XML, and from what."""

    data: bytes
    guest: Domain
    host: Host
    topology: str
    """The digest of the host's snapshot."""
    others: Others
    policy: Policy
    plan: Plan
    problems: tuple[str, ...] = ()
    """What is wrong with the policy file, this host's records or the guest's own pin; the plan has its own warnings."""

    def warnings(self, told: Sequence[str] = ()) -> tuple[str, ...]:
        """What there is to say but for what was `told` already."""
        return tuple(each for each in (*self.problems, *self.plan.warnings) if each not in told)

    @property
    def stuck(self) -> dict[str, str]:
        """Why libvirt cannot start the guest with the pins that its XML has, by whose they are; as `startable` says."""
        return stuck(self.guest, self.host)


def decide(
    root: str,
    policy: Policy,
    data: bytes,
    source: str,
    problems: tuple[str, ...],
    tentative: bool = False,
    filtered: bool = False,
) -> Decision:
    """Decide for the guest whose domain XML is `data`, and claim its CPUs before anybody acts on it.

    A `tentative` decision claims nothing: it is for a guest that does not run, whose next start decides anew. One that
    is `filtered` starts with the pin of its plan, not with the one of its XML; in a moment libvirt calls `prepare` for
    it, or has refused it and tells nobody. Raises DomainError, HostError: where a dedicated CPU cannot be claimed, too.
    Other claims only guide the next decisions: if one cannot be written, that is a warning.
    """
    guest = _as_it_runs(root, read(data, source, policy.sections()))
    host = read_host(root, policy, guest)
    if tentative:
        others, decided = plan_beside(Ledger.look(root, policy, host), guest, policy, host)
    else:
        with Ledger(root, policy, host) as ledger:
            others, decided = plan_beside(ledger, guest, policy, host)
            problems += ledger.faults
            if not filtered:
                problems += _claim(ledger, guest, decided)
            elif guest.uuid not in ledger.running:  # Else libvirt refuses what is to be restored.
                ledger.hurry()
                problems += _claim(ledger, _as_printed(guest, decided), decided)
    topology, unkept = _keep_topology(root, host)
    return Decision(
        data=data,
        guest=guest,
        host=host,
        topology=topology,
        others=others,
        policy=policy,
        plan=decided,
        problems=problems + unkept,
    )


def _as_printed(guest: Domain, decided: Plan) -> Domain:
    """`guest` with the pins that a filter gives it."""
    if decided.pin is None:
        return guest
    follow = dict.fromkeys(guest.iothreads if decided.follow_iothreads else (), decided.pin)
    return guest.replace(emulatorpin=decided.pin, iothreadpins={**guest.iothreadpins, **follow})


def _as_it_runs(root: str, guest: Domain) -> Domain:
    """`guest` with what numad chose for it, which only libvirt's status file of a running guest says.

    Raises HostError, DomainError.
    """
    path = f"{root}{LIBVIRT_RUN}/{guest.name}.xml"
    if not guest.automatic or not os.path.exists(path):
        return guest
    from emupin.guest import statusxml

    try:
        running = statusxml.read(read_bytes(path), path, frozenset()).domain
    except FileNotFoundError:  # It has ended meanwhile.
        return guest
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "numad's choice is not known") from None
    return guest.replace(numad=running.numad) if running.uuid == guest.uuid else guest


def read_host(root: str, policy: Policy, guest: Domain) -> Host:
    """All of this machine that a plan for `guest` looks at. Raises HostError."""
    host = read_cached(root, guest.partition)
    return interrupts.add_cached(root, host) if interrupts.matter(policy) else host


def plan_beside(ledger: Ledger, guest: Domain, policy: Policy, host: Host) -> tuple[Others, Plan]:
    """What the other guests have, and the plan. Nobody is given alone what another guest's threads are on."""
    cpus = cpus_that_matter(guest, policy, host)
    others = ledger.others(guest.uuid, cpus)
    decided = plan(guest, policy, host, others)
    if decided.alone and not ledger.holds_alone(guest.uuid, decided.alone) and ledger.finds_strangers(guest.uuid, cpus):
        others = ledger.others(guest.uuid, cpus)
        decided = plan(guest, policy, host, others)
    return others, decided


def _claim(ledger: Ledger, guest: Domain, decided: Plan) -> tuple[str, ...]:
    """Note who has which CPU, or will have once `guest` starts; what went wrong with it."""
    if guest.uuid is None:
        raise HostError(f"guest {guest.name}", "its domain XML has no <uuid>", "libvirt always gives one")
    if decided.cpus is None:
        ledger.release(guest.uuid)
    else:
        ledger.claim(guest.uuid, decided.cpus, decided.dedicated, decided.vhost, decided.vhost_dedicated)
    if not (decided.failed and decided.on_failure == "refuse"):
        ledger.expect(guest)
    try:
        ledger.save()
    except HostError as error:
        if decided.dedicated or decided.vhost_dedicated:
            raise
        return (str(error),)
    return ()


def _keep_topology(root: str, host: Host) -> tuple[str, tuple[str, ...]]:
    """Keep what the host looks like, for `audit replay`: its digest, and what went wrong."""
    data = canonical(host)
    digest = hex_digest(data)
    try:
        keep(root, TOPOLOGIES_KEPT, f"{digest}.json", data)
    except OSError as error:
        return digest, (f"{error.filename}: {error.strerror}; the topology was not saved for replay",)
    return digest, ()
