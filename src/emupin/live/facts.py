"""What a command decides from besides guest and policy: a host, and what other guests have of its CPUs."""

from __future__ import annotations

import os
from functools import cached_property

from emupin.base import cpuset
from emupin.base.errors import EmupinError
from emupin.base.files import LIBVIRT_RUN, root_from_environment
from emupin.base.frozen import Frozen
from emupin.engine import interrupts, topology
from emupin.engine.situation import USES, Others, Own
from emupin.node.claims import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from emupin.engine.host import Host
    from emupin.guest.domain import Domain
    from emupin.policy.values import Policy

    Cpus = frozenset[int]

ALL_CPUS = frozenset(range(cpuset.HIGHEST + 1))


class Facts(Frozen):
    """A host and its guests, as they are now or as they were recorded."""

    host: Host | None
    held: Others = Others()
    """What the guests of a recorded host had."""
    own: Mapping[str, Own] = {}
    """By UUID, of guests of which that does not tell all."""
    ledger: Ledger | None = None
    """The claims of a machine's running guests; None where there are none, or the host is a recorded one."""
    remarks: tuple[str, ...] = ()
    """What could not be found out."""
    source: str = ""
    """The recorded host's file; empty for this machine."""

    def others(self, guest: Domain) -> Others:
        """What guests other than `guest` have."""
        if guest.uuid not in self.known:
            return self.of_all
        if self.ledger:
            return self.ledger.others(guest.uuid, ALL_CPUS)
        return without(self.held, guest.uuid, self.own.get(guest.uuid or ""))

    @cached_property
    def of_all(self) -> Others:
        return self.ledger.others(None, ALL_CPUS) if self.ledger else self.held

    @cached_property
    def known(self) -> frozenset[str]:
        """The UUIDs of guests that have something: for all others what guests have is the same."""
        if self.ledger:
            return self.ledger.known
        return frozenset().union(*(getattr(self.held, use) for use in USES))


def without(held: Others, uuid: str | None, own: Own | None = None) -> Others:
    """What all but the guest `uuid` have; what its own emulator threads had is `previous`, unless its `own` tells."""
    uses: dict[str, Any] = {use: dict(getattr(held, use)) for use in USES}
    before = {use: by_guest.pop(uuid or "", frozenset()) for use, by_guest in uses.items()}
    if own is None:
        return Others(**uses, previous=before["dedicated"] | before["shared"] or None, names=held.names)
    uses["shared"] = {owner: cpus - own.kept for owner, cpus in uses["shared"].items()}
    return Others(**uses, previous=own.previous, vhost=own.vhost, names=held.names)


def read_facts(choice: str | None, policy: Policy) -> Facts:
    """The facts that `--host` asks for: this machine's where it is not given, none at all for `none`.

    Raises HostError.
    """
    if choice == "none":
        return Facts(None)
    if choice is None:
        return of_machine(root_from_environment(), policy)
    if os.path.isdir(choice):
        return of_machine(choice.rstrip("/"), policy).replace(source=choice)
    from emupin.engine import snapshot

    recorded = snapshot.read(choice)
    return Facts(recorded.host, recorded.held, recorded.own, source=choice)


def of_machine(root: str, policy: Policy) -> Facts:
    """The facts of the machine below `root`. Who may not look at its guests decides without them, and is told so."""
    host = interrupts.add(root, topology.read(root))
    if not os.path.isdir(root + LIBVIRT_RUN):
        return Facts(host)
    try:
        ledger = Ledger.look(root, policy, host)
    except EmupinError as error:
        return Facts(host, remarks=(f"other guests are not taken into account: {error}",))
    return Facts(host, ledger=ledger, remarks=ledger.faults)
