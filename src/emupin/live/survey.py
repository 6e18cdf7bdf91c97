"""All running guests, or some of them, against the policy in force: what `status` shows, prints and exports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base.errors import EmupinError
from emupin.base.files import DEFINITIONS, LIBVIRT_RUN
from emupin.base.frozen import Frozen
from emupin.base.nearmiss import nearest
from emupin.live import facts, observe
from emupin.node import store
from emupin.node.claims import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emupin.live.observe import Observed
    from emupin.policy.values import Policy


class Survey(Frozen):
    """What was found at one moment."""

    guests: tuple[Observed, ...]
    errors: tuple[str, ...] = ()
    """What could not be found out, a line each."""
    remarks: tuple[str, ...] = ()
    policy: str | None = None
    """The digest of the policy; None where there is none."""

    @property
    def counts(self) -> dict[str, int]:
        assessed = [each.assessment for each in self.guests]
        return {
            "guests": len(assessed),
            "in_line": sum(each.in_line and each.plan.cpus is not None for each in assessed),
            "drift": sum(not each.in_line for each in assessed),
            "unmanaged": sum(each.in_line and each.plan.cpus is None for each in assessed),
            "errors": len(self.errors),
        }

    @property
    def exit_status(self) -> int:
        return 2 if self.errors else int(self.counts["drift"] > 0)


def take(root: str, wanted: Sequence[str], policy: Policy | None) -> Survey:
    """Look at the guests `wanted`, names or UUIDs, or at all that run; `policy` None is the one in force.

    One guest's trouble is an error of the survey and stops no other. Raises EmupinError where nothing can be said.
    """
    errors: list[str] = []
    if policy is None:
        found = store.find(root)
        policy, errors = found.policy, list(found.problems)
    around = facts.of_machine(root, policy) if policy else None
    remarks = around.remarks if around else () if errors else ("no policy is in force: nothing can drift",)
    names = select(root, wanted, policy)
    guests = []
    for name in names:
        try:
            guests.append(observe.observe(root, name, policy, around))
        except EmupinError as error:
            if os.path.exists(f"{root}{LIBVIRT_RUN}/{name}.xml") or wanted:  # Else it has ended meanwhile.
                errors.append(str(error))
    return Survey(tuple(guests), tuple(errors), remarks, policy.digest if policy else None)


def select(root: str, wanted: Sequence[str], policy: Policy | None = None) -> list[str]:
    """The names of the running guests that `wanted` means, in its order; all of them where it is empty.

    Raises EmupinError for one that does not run.
    """
    names = observe.running(root)
    if not wanted:
        return names
    uuids = {} if set(wanted) <= set(names) else _names_by_uuid(root, policy)
    chosen = [each if each in names else uuids.get(each.replace("-", "").lower()) for each in wanted]
    for each, name in zip(wanted, chosen):
        if name is None:
            raise _unknown(root, each, names)
    return list(dict.fromkeys(name for name in chosen if name is not None))


def _names_by_uuid(root: str, policy: Policy | None) -> dict[str, str]:
    """The names of the running guests by UUID without hyphens. Raises EmupinError."""
    running = Ledger.look(root, policy).running_guests
    return {each.uuid.replace("-", ""): name[:-4] for name, each in running.items()}


def _unknown(root: str, wanted: str, names: list[str]) -> EmupinError:
    if "/" not in wanted and os.path.isfile(f"{root}{DEFINITIONS}/{wanted}.xml"):
        return EmupinError(wanted, "the guest is not running", "`emupin explain` shows where it will be placed")
    near = nearest(wanted, names)
    hint = f"did you mean {near!r}?" if near else "`emupin status` without a name shows all that run"
    count = f"{len(names)} running guest{'' if len(names) == 1 else 's'}"
    return EmupinError(wanted, f"no guest of that name or UUID among {count}", hint)
