"""A document through the engine: what `emupin rewrite` does with it, and what there is to say."""

from __future__ import annotations

import functools
import os

from emupin.base.errors import EmupinError, HostError
from emupin.base.files import DEFINITIONS, root_from_environment
from emupin.base.frozen import Frozen
from emupin.engine.plan import plan
from emupin.fleet.foreign import absent_cpus
from emupin.fleet.inplace import update
from emupin.fleet.numad import loses_numad
from emupin.fleet.together import Company
from emupin.guest import domainxml, splice
from emupin.guest.document import read_file
from emupin.guest.domain import OTHER_DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.fleet.batch import Batch
    from emupin.live.facts import Facts
    from emupin.policy.values import Policy


def is_libvirts(path: str) -> bool:
    """Whether libvirt reads the file when it starts, and writes it from memory."""
    if os.path.islink(path):
        path = os.path.realpath(path)
    return f"{_real(os.path.dirname(path))}/".startswith(f"{_real(root_from_environment() + DEFINITIONS)}/")


_real = functools.lru_cache(maxsize=64)(os.path.realpath)
"""Files of a folder come one after another."""


class Wishes(Frozen):
    """What the command line asks for."""

    check: bool = False
    in_place: bool = False
    diff: bool = False
    validate: bool = False
    sync: bool = False
    report: bool = False
    together: bool = False


def load_validation() -> None:
    """See that lxml is there before any work is done. Raises EmupinError."""
    try:
        from emupin.fleet import validation  # noqa: F401
    except ImportError:
        hint = "install python3-lxml (the same name on RHEL), or omit --validate"
        raise EmupinError("emupin rewrite", "--validate needs lxml, which is not installed", hint) from None


class Rewriter:
    """The engine with its policy, a host and the guests there; without a host what needs one is not checked."""

    def __init__(self, policy: Policy, facts: Facts, wishes: Wishes) -> None:
        self.policy, self.facts, self.wishes = policy, facts, wishes
        self.company = Company(policy, facts) if wishes.together else None
        self.sections = policy.sections()
        """What the policy looks into."""

    def document(self, path: str, batch: Batch) -> bytes:
        """What to print for the document in the file `path`. Raises EmupinError, OSError."""
        if self.wishes.in_place:
            before, after = update(path, lambda data: self.rewrite(data, path, batch), self.wishes.sync)
            batch.unseen += before != after and is_libvirts(path)
        else:
            before = read_file(path)
            after = self.rewrite(before, path, batch)
        return self.shown(before, after, path, batch)

    def shown(self, before: bytes, after: bytes, path: str, batch: Batch) -> bytes:
        wishes = self.wishes
        batch.changed += before != after
        if wishes.diff and before != after:
            from emupin.fleet.diff import unified

            return unified(before, after, path)
        if wishes.diff or wishes.in_place:
            return b""
        if wishes.check:
            return os.fsencode(path) + b"\n" if before != after else b""
        return after

    def rewrite(self, data: bytes, source: str, batch: Batch) -> bytes:
        """`data` as the policy wants it. Raises EmupinError where that cannot be had, or is not proved."""
        guest = domainxml.read(data, source, self.sections)
        others = self.company.others(guest, source) if self.company else self.facts.others(guest)
        decided = self.company.decide(guest, source) if self.company else None
        decision = decided or plan(guest, self.policy, self.facts.host, others)
        foreign = absent_cpus(guest, self.facts) if decision.rule else ""
        if self.wishes.report:
            from emupin.report.preview import preview
            from emupin.trail.replay import Basis

            warnings = (*decision.warnings, foreign) if foreign else decision.warnings
            basis = Basis(guest, self.policy, self.facts.host, others)
            batch.rows.append(preview(data, source, basis, decision, warnings))
        if decision.rule is None:
            told = (decision.reason,) if guest.kind in OTHER_DRIVERS else decision.warnings
            batch.remarks += [f"{source}: {each}" for each in told]
            return data
        if decision.failed:
            raise HostError(source, decision.reason, foreign or "change the policy, or the guest's pins")
        remarks = (*decision.warnings, foreign) if foreign else decision.warnings
        remarks = (decision.reason, *remarks) if decision.waits else remarks
        batch.remarks += [f"{source}: {remark}" for remark in remarks]
        if decision.pin is None:
            return data
        result = splice.rewrite(data, guest, decision.pin, decision.follow_iothreads)
        if result != data and (numad := loses_numad(guest)):
            batch.remarks.append(f"{source}: {numad}")
        if self.wishes.validate and result != data:
            from emupin.fleet.validation import validate

            batch.remarks += validate(data, result, decision.pin, source, follow=decision.follow_iothreads)
        return result
