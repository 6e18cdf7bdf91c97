"""Many collected nodes: what each of them says of itself, and what a new policy would change there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from emupin.base.errors import EmupinError
from emupin.base.strictjson import kind
from emupin.engine import snapshot
from emupin.fleet.trial import Side, Tally, Trial
from emupin.live.facts import Facts
from emupin.trail.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emupin.policy.values import Policy

Value = TypeVar("Value")

NODE = "node.json"
COLLECT = "collect it again with `emupin collect`"

KINDS: dict[type, str] = {str: "a text", int: "a number", bool: "true or false", list: "an array"}
MOST = (1 << 31) - 1
"""No node has so many of anything."""


@dataclass
class Node:
    """One node, as it was when it was collected; counts are None where they could not be had."""

    name: str
    collected: str = ""
    version: str = ""
    build: str = ""
    policy: str | None = None
    """The digest of the policy in force; None where there is none."""
    guests: int | None = None
    drift: int | None = None
    failed: int | None = None
    """Guests that no placement fits, or that could not be looked at."""
    problems: int | None = None
    """doctor's, like `warnings`."""
    warnings: int | None = None
    head: str = ""
    """Hash, count and time of the audit trail's last entry; empty where there is none."""
    changed: int | None = None
    """Guests that fare differently under the policy that is tried; None where none is."""
    unplaced: int | None = None
    """Guests that it leaves without a placement."""
    troubles: list[str] = field(default_factory=list)
    """What is missing, or cannot be read."""

    @property
    def needs_attention(self) -> bool:
        return bool(self.troubles or self.drift or self.failed or self.problems or self.unplaced)


def find(folder: str) -> list[str]:
    """The folders of the nodes in `folder`, by name. Raises EmupinError."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.path for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError as error:
        raise EmupinError(folder, f"cannot be read: {error.strerror}", "give a folder of collected nodes") from None
    if not found:
        raise EmupinError(folder, "has no folder of a node", "unpack what `emupin collect` wrote on each into one")
    return found


def read(folder: str) -> Node:
    """What the node collected in `folder` says of itself; what is missing is a trouble of it."""
    node = Node(os.path.basename(folder))
    for part in (_read_node, _read_status, _read_doctor, _read_head):
        try:
            part(node, folder)
        except EmupinError as error:
            node.troubles.append(str(error))
            if part is _read_node:
                break  # Nothing of it was collected.
    return node


def _load(path: str) -> _Form:
    """Raises EmupinError."""
    try:
        values = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise EmupinError(path, f"not JSON: {error}", COLLECT) from None
    return _Form(path, "the whole", values)


class _Form:
    """A JSON object of a node, which may have been damaged, or made to do harm."""

    def __init__(self, path: str, where: str, values: object) -> None:
        """Raises EmupinError where `values` is no object."""
        if not isinstance(values, dict):
            raise EmupinError(path, f"{where} must be an object, is {kind(values)}", COLLECT)
        self.path, self.values = path, values

    def get(self, key: str, what: type[Value]) -> Value | None:
        """None where there is none. Raises EmupinError where it is another kind of value."""
        value = self.values.get(key)
        if value is None or (isinstance(value, what) and (what is bool or not isinstance(value, bool))):
            return value
        raise EmupinError(self.path, f"{key} must be {KINDS[what]}, is {kind(value)}", COLLECT)

    def count(self, key: str) -> int | None:
        value = self.get(key, int)
        if value is None or 0 <= value <= MOST:
            return value
        raise EmupinError(self.path, f"{key} must be a count, is {kind(value)}", COLLECT)

    def inner(self, key: str) -> _Form:
        value = self.values.get(key)
        return _Form(self.path, key, {} if value is None else value)

    def forms(self, key: str) -> list[_Form]:
        return [_Form(self.path, f"each of {key}", value) for value in self.get(key, list) or ()]


def _bytes(path: str) -> bytes:
    """Raises EmupinError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise EmupinError(path, "is not a regular file", COLLECT)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EmupinError(path, f"cannot be read: {error.strerror}", COLLECT) from None


def _read_node(node: Node, folder: str) -> None:
    form = _load(f"{folder}/{NODE}")
    node.collected, node.version, node.build = (form.get(key, str) or "" for key in ("collected", "version", "build"))
    node.troubles += map(str, form.get("problems", list) or ())


def _read_status(node: Node, folder: str) -> None:
    form = _load(f"{folder}/status.json")
    summary, plans = form.inner("summary"), [guest.inner("plan") for guest in form.forms("guests")]
    failed = sum(plan.get("failed", bool) or False for plan in plans) + len(form.get("errors", list) or ())
    node.policy, node.failed = form.get("policy", str), failed
    node.guests, node.drift = summary.count("guests"), summary.count("drift")


def _read_doctor(node: Node, folder: str) -> None:
    form = _load(f"{folder}/doctor.json")
    node.problems, node.warnings = form.count("problem"), form.count("warning")


def _read_head(node: Node, folder: str) -> None:
    node.head = _bytes(f"{folder}/head").decode("ascii", "replace").strip()


# -- a policy that is tried -------------------------------------------------------------------------------------------


class Trials:
    """A new policy tried on the guests of many nodes, against the one that each node has in force."""

    def __init__(self, new: Policy, old: Policy | None) -> None:
        """`old`: what the new one is compared with everywhere; None: what is in force on the node."""
        self.new, self.old = new, old
        self.known: dict[str, Policy] = {}
        """Policies by digest: most nodes have the same."""

    def run(self, node: Node, folder: str) -> bytes:
        """Count in `node` what changes; one line per guest whose outcome differs."""
        try:
            recorded = snapshot.read(f"{folder}/host.json")
            facts, old = Facts(recorded.host, recorded.held, recorded.own), self.old or self._in_force(node, folder)
            paths = _guests(folder)
        except EmupinError as error:
            node.troubles.append(str(error))
            return b""
        trial = Trial(Side(self.new, facts), Side(old, facts) if old else None, as_json=False)
        tally = Tally()
        for path in paths:
            tally.add(path, trial.document)
        node.changed, node.unplaced = tally.changed, tally.troubled
        node.troubles += tally.remarks
        return tally.output

    def _in_force(self, node: Node, folder: str) -> Policy | None:
        """Raises EmupinError where the node's policy was not collected."""
        if node.policy is None:
            return None
        if node.policy not in self.known:
            try:
                self.known[node.policy] = Archive((f"{folder}/var/lib/emupin",)).policy(node.policy).policy
            except EmupinError as error:
                raise EmupinError(error.where or folder, error.what, f"{COLLECT}, or give --against") from None
        return self.known[node.policy]


def _guests(folder: str) -> list[str]:
    """Raises EmupinError."""
    place = f"{folder}/guests"
    try:
        found = sorted(f"{place}/{name}" for name in os.listdir(place) if name.endswith(".xml"))
    except FileNotFoundError:  # The archive of a node without a guest has no such folder.
        return []
    except OSError as error:
        raise EmupinError(place, f"cannot be read: {error.strerror}", COLLECT) from None
    return [path for path in found if os.path.isfile(path)]


# -- all of them ------------------------------------------------------------------------------------------------------


def counts(nodes: Sequence[Node], key: str) -> dict[Any, int]:
    """How many nodes have which value of `key`, the most frequent first; nodes that say nothing are left out."""
    found: dict[Any, int] = {}
    for node in nodes:
        if node.version:
            value = getattr(node, key)
            found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def total(nodes: Sequence[Node], key: str) -> int:
    return sum(getattr(node, key) or 0 for node in nodes)
