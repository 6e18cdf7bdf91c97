"""What a policy would do to a folder of domain XML, as the page shows it: for a review before anything is deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emupin import __version__
from emupin.base import cpuset
from emupin.base.digest import hex_digest
from emupin.engine.host import canonical
from emupin.grammar.policytext import render
from emupin.guest import splice
from emupin.report.page import Page, Source
from emupin.report.row import row
from emupin.trail.replay import NO_DECISION, Basis, Replayed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emupin.engine.host import Host
    from emupin.engine.plan import Plan
    from emupin.policy.values import Policy


def preview(data: bytes, source: str, basis: Basis, decided: Plan, warnings: Iterable[str]) -> dict[str, Any]:
    """The row of the file `source`, which holds `data`, with all `warnings`."""
    changes = [] if decided.pin is None else splice.edits(data, basis.guest, decided.pin, decided.follow_iothreads)
    entry = {
        **decided.told(basis.guest),
        "op": "rewrite",
        "name": basis.guest.name,
        "uuid": basis.guest.uuid,
        "outcome": _outcome(decided, bool(changes)),
        "warnings": list(warnings),
        "diff": splice.cputune_diff(data, basis.guest, changes) if changes else [],
        "sha256_before": hex_digest(data),
        "sha256_after": hex_digest(splice.apply(data, changes)),
        "policy": basis.policy.digest,
        "topology": digest_of(basis.host),
        "facts": {"online": cpuset.format(basis.host.online)} if basis.host else {},
        "emupin": __version__,
    }
    return row(entry, source, source, Replayed(NO_DECISION, basis=basis))


def _outcome(decided: Plan, changes: bool) -> str:
    if decided.failed:
        return "refused" if decided.on_failure == "refuse" else "failed"
    return "rewritten" if changes else "unchanged"


def digest_of(host: Host | None) -> str | None:
    return None if host is None else hex_digest(canonical(host))


def page(policy: Policy, host: Host | None, made: str, together: bool = False) -> Page:
    """A page without any file yet; whether the guests are decided `together`, as they start on one host in order."""
    order = "as they start one after the other on one host" if together else "each as if it started alone"
    subject = f"What the policy does to these guests, {order}. Nothing was changed on any host."
    empty = Page("emupin: preview of a policy", subject, "file", made, [Source("files")])
    empty.keep_policy(policy, render(policy))
    if host is not None:
        empty.keep_host(digest_of(host) or "", host)
    return empty
