"""What the audit trail says of a decision, an enforcement, a record or a refusal.

Nothing from outside `<cputune>` is written, but for the guest's name, its UUID and the facts that a rule looks at: a
domain XML carries passwords.
"""

from __future__ import annotations

import time

from emupin import __version__
from emupin.base import cpuset
from emupin.base.digest import hex_digest
from emupin.base.system import os
from emupin.base.text import printable
from emupin.engine.situation import USES
from emupin.guest.domain import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emupin.base.jsonline import Json
    from emupin.engine.host import Host
    from emupin.engine.situation import Others
    from emupin.guest.domain import Domain
    from emupin.guest.splice import Edit
    from emupin.node.decision import Decision
    from emupin.node.enforce import Left
    from emupin.policy.values import Policy


FORM = 2
"""Of the facts: emupin 0.1 wrote the first, without that number."""


def now() -> str:
    """The time, UTC, RFC 3339, with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z"


def entry(
    operation: str, outcome: str, decision: Decision, changes: list[Edit], left: Sequence[Left] = ()
) -> dict[str, Json]:
    """The entry for one decision; `changes` are those of its XML, `left` the threads that stayed elsewhere, if any."""
    guest, plan, data = decision.guest, decision.plan, decision.data
    digest_before = digest_after = hex_digest(data)
    diff: list[str] = []
    if changes:
        from emupin.guest.splice import apply, cputune_diff

        diff, digest_after = cputune_diff(data, guest, changes), hex_digest(apply(data, changes))
    return {
        "time": now(),
        "host": os.uname().nodename,
        "op": operation,
        "uuid": guest.uuid,
        "name": guest.name,
        **plan.told(guest),
        "warnings": decision.warnings(),
        "outcome": outcome,
        "diff": diff,
        "sha256_before": digest_before,
        "sha256_after": digest_after,
        "policy": decision.policy.digest,
        "topology": decision.topology,
        "facts": facts(
            _asked(guest, decision.policy),
            decision.host,
            decision.others,
            len(decision.problems),
        ),
        **({"left": [printable(str(each)) for each in left]} if left else {}),
        "emupin": __version__,
    }


def _asked(guest: Domain, policy: Policy) -> Domain:
    """`guest` with those of its extra specs that a rule looks at: there may be many, and they are nobody's business."""
    asked = policy.extra_specs()
    specs = {name: value for name, value in (guest.extra_specs or {}).items() if name in asked}
    return guest.replace(extra_specs=specs or None)


def failure(operation: str, outcome: str, name: str, decision: Decision | None, reason: str) -> dict[str, Json]:
    """The entry for trouble with the guest `name`, before or after there was a decision."""
    if decision:
        known = entry(operation, outcome, decision, [])
        decided = {"after": known["after"], "reason": known["reason"]}  # What came of it is not what was decided.
        return {**known, "after": known["before"], "reason": printable(reason), "decided": decided}
    return {
        "time": now(),
        "host": os.uname().nodename,
        "op": operation,
        "name": printable(name),
        "outcome": outcome,
        "reason": printable(reason),
        "emupin": __version__,
    }


def facts(guest: Domain, host: Host, others: Others, problems: int = 0) -> dict[str, Json]:
    """All that a decision has read of the guest, the host and the other guests; CPU lists as text.

    So many of the entry's warnings, the first ones, are the decision's `problems`: no plan has them.
    """
    return {
        "form": FORM,
        "kind": guest.kind,
        "vcpus": guest.vcpus,
        "offline": cpuset.format(guest.offline),
        "cpuset": cpuset.text(guest.cpuset),
        "automatic": guest.automatic,
        "vcpupins": _pins(guest.vcpupins),
        "emulatorpin": cpuset.text(guest.emulatorpin),
        "iothreads": guest.iothreads,
        "iothreadpins": _pins(guest.iothreadpins),
        "realtime": cpuset.format(guest.realtime),
        "interfaces": None if guest.interfaces is None else sorted(guest.interfaces),
        "flavor": guest.flavor,
        "project": guest.project,
        "extra_specs": guest.extra_specs,
        "online": cpuset.format(host.online),
        "partition": guest.partition,
        "memory": _memory(guest.memory),
        "numad": cpuset.text(guest.numad),
        "within": cpuset.format(host.within(guest.partition)),
        "interrupts": cpuset.format(host.interrupts),
        "others": {
            **{use: _by_guest(getattr(others, use)) for use in USES},
            "previous": cpuset.text(others.previous),
            "vhost": cpuset.text(others.vhost),
            "names": others.names,
        },
        "problems": problems,
    }


def _memory(memory: Memory) -> dict[str, Json] | None:
    """None where nothing is said of where it comes from."""
    if memory == Memory():
        return None
    return {
        "immediate": memory.immediate,
        "hugepages": [cpuset.text(cells) for cells in memory.hugepages],
        "cells": memory.cells,
        "mode": memory.mode,
        "automatic": memory.automatic,
        "nodes": cpuset.text(memory.nodes),
        "devices": [cpuset.format(nodes) for nodes in memory.devices],
        "memnodes": {str(cell): cpuset.format(nodes) for cell, nodes in memory.memnodes.items()},
    }


def _pins(pins: Mapping[int, frozenset[int]]) -> dict[str, Json]:
    texts = {pin: cpuset.format(pin) for pin in frozenset(pins.values())}
    return {str(number): texts[pin] for number, pin in pins.items()}


def _by_guest(uses: Mapping[str, frozenset[int]]) -> dict[str, Json]:
    return {uuid: cpuset.format(cpus) for uuid, cpus in uses.items()}
