"""Recorded hosts: one JSON file that stands for a machine anywhere, or a folder with the machine's own kernel files."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.strictjson import Fields, kind, show
from emupin.engine import interrupts, topology
from emupin.engine.host import VERSION, Host, to_json
from emupin.engine.situation import USES, Others, Own

LARGEST = 4 * 1024 * 1024
"""Bytes; a host of sixteen thousand CPUs needs a tenth of it."""

WIDTH = 118

REMARKS = ("recorded", "hostname", "kernel", "source")
"""Keys that say where the facts come from; no decision reads them."""
FACTS = ("online", "isolated", "nohz_full", "nodes", "cores", "l3")
LATER_FACTS = ("partitions", "possible", "cgroup", "libvirt", "interrupts")
"""Those that hosts recorded by earlier versions lack."""

RECORD = "record the host again with `emupin host --snapshot`"


@dataclass(frozen=True)
class Snapshot:
    """A host, where it was recorded, and who held which CPU then."""

    host: Host
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Those of REMARKS that are known."""
    held: Others = field(default_factory=Others)
    own: Mapping[str, Own] = field(default_factory=dict)
    """By UUID, of guests of which `held` does not tell all."""


def load(path: str) -> Host:
    """The host that `path` records. Raises HostError."""
    return read(path).host


def read(path: str) -> Snapshot:
    """What `path` records: a file that `emupin host --snapshot` wrote, or a root folder. Raises HostError."""
    if os.path.isdir(path):
        return take(path.rstrip("/"))
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        hint = "--host takes a file that `emupin host --snapshot -o FILE` wrote, or the word none"
        raise HostError(path, f"cannot be read: {error.strerror}", hint) from None
    return parse(data, path)


def take(root: str, recorded: str | None = None) -> Snapshot:
    """Record the host below `root`, at the time `recorded`. Raises HostError."""
    remarks = {
        "recorded": recorded,
        "hostname": _first_line(f"{root}/proc/sys/kernel/hostname"),
        "kernel": _first_line(f"{root}/proc/sys/kernel/osrelease"),
    }
    return Snapshot(interrupts.add(root, topology.read(root)), {key: text for key, text in remarks.items() if text})


def _first_line(path: str) -> str | None:
    """None where it cannot be had: a recorded folder need not have the file, and no decision reads it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None


# -- written ----------------------------------------------------------------------------------------------------------


def render(snapshot: Snapshot) -> str:
    """The text of a snapshot file: a key a line, long values folded."""
    form = {**to_json(snapshot.host), **held_json(snapshot.held, snapshot.own)}
    plain = {"emupin_host": form.pop("emupin_host"), **snapshot.remarks, **form}
    return "{\n" + ",\n".join(_entry(key, value) for key, value in plain.items()) + "\n}\n"


def held_json(held: Others, own: Mapping[str, Own]) -> dict[str, Any]:
    """The `held` key: CPU lists by the UUID that has them, by what for; nothing where nobody has any."""
    uses: dict[str, dict[str, Any]] = {}
    for use in USES:
        by_guest: Mapping[str, frozenset[int]] = getattr(held, use)
        if by_guest:
            uses[use] = {owner: cpuset.format(cpus) for owner, cpus in sorted(by_guest.items())}
    if held.names:
        uses["names"] = dict(sorted(held.names.items()))
    if own:
        uses["own"] = {uuid: _own_json(each) for uuid, each in sorted(own.items())}
    return {"held": uses} if uses else {}


def _own_json(own: Own) -> dict[str, str]:
    lists = {"previous": own.previous, "vhost": own.vhost, "kept": own.kept}
    return {key: cpuset.format(cpus) for key, cpus in lists.items() if cpus}


def _entry(key: str, value: Any) -> str:
    head, text = f"  {json.dumps(key)}: ", json.dumps(value)
    if len(head + text) <= WIDTH or isinstance(value, str):
        return head + text
    folded = textwrap.fill(text[1:-1], WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return f"{head}{text[0]}\n{textwrap.indent(folded, '    ')}\n  {text[-1]}"


# -- read -------------------------------------------------------------------------------------------------------------


def parse(data: bytes, path: str) -> Snapshot:
    """The snapshot that `data` spells; `path` names it in errors. Raises HostError."""
    if len(data) > LARGEST:
        raise HostError(path, "is larger than 4 MiB", "a recorded host is a few kilobytes: wrong file?")
    form = Fields.load(data, path)
    _check_version(form)
    form.only(("emupin_host", *REMARKS, *FACTS, *LATER_FACTS, "held"))
    for key in FACTS:
        form.need(key, RECORD)
    remarks = {key: form.text(key) for key in REMARKS if key in form.values}
    if "held" not in form.values:
        return Snapshot(_host(form), remarks)
    held = form.inner("held")
    return Snapshot(_host(form), remarks, _held(held), _own(held) if "own" in held.values else {})


def _check_version(form: Fields) -> None:
    version = form.need("emupin_host", "is this a file that `emupin host --snapshot` wrote?")
    if type(version) is not int:
        form.refuse("emupin_host", f"must be the number {VERSION}, is {kind(version)}", RECORD)
    if version != VERSION:
        form.refuse("emupin_host", f"version {show(version)} is not known", f"this emupin reads version {VERSION}")


def _host(form: Fields) -> Host:
    online = form.cpus("online")
    if not online:
        form.refuse("online", "names no CPU", RECORD)
    cores, l3 = form.cpu_lists("cores"), form.cpu_lists("l3")
    for groups in (cores, l3):
        form.check_groups(groups, online)
    return Host(
        online,
        form.cpus("isolated"),
        form.cpus("nohz_full"),
        _nodes(form.inner("nodes"), online),
        tuple(sorted((core for _, core in cores), key=min)),
        tuple(sorted((cpus for _, cpus in l3), key=min)),
        _partitions(form.inner("partitions")) if "partitions" in form.values else {},
        form.cpus("possible") if "possible" in form.values else frozenset(),
        form.text("cgroup") if "cgroup" in form.values else "",
        form.text("libvirt") if "libvirt" in form.values else "",
        form.cpus("interrupts") if "interrupts" in form.values else frozenset(),
    )


def _nodes(form: Fields, online: frozenset[int]) -> dict[int, frozenset[int]]:
    lists = [(key, form.cpus(key)) for key in form.values]
    for key, _ in lists:
        if not (key.isascii() and key.isdigit() and len(key) < 6 and key == str(int(key))):
            form.refuse(key, "is not the number of a node", "nodes are numbered from 0")
    having = [(key, cpus) for key, cpus in lists if cpus]  # A node may have memory alone.
    form.check_groups(having, online)
    return {int(key): cpus for key, cpus in sorted(having, key=lambda each: int(each[0]))}


def _partitions(form: Fields) -> dict[str, frozenset[int]]:
    for name in form.values:
        if not name.startswith("/"):
            form.refuse(name, "is not a partition", "libvirt names them as paths, as in /machine")
        if not form.cpus(name):
            form.refuse(name, "names no CPU", "omit it, or name its CPUs")
    return {name: form.cpus(name) for name in form.values}


def _held(uses: Fields) -> Others:
    uses.only((*USES, "names", "own"))
    owners = {use: uses.inner(use) for use in USES if use in uses.values}
    found: dict[str, Any] = {use: {owner: form.cpus(owner) for owner in form.values} for use, form in owners.items()}
    return Others(**found, names=uses.texts("names"))


def _own(held: Fields) -> dict[str, Own]:
    form = held.inner("own")
    found = {}
    for uuid in form.values:
        lists = form.inner(uuid)
        lists.only(("previous", "vhost", "kept"))
        found[uuid] = Own(**{key: lists.cpus(key) for key in lists.values})
    return found
