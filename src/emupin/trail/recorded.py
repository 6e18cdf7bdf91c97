"""The guest and the other guests of a decision, rebuilt from the facts that an audit entry holds, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emupin.base.strictjson import Fields, kind
from emupin.engine.situation import USES, Others
from emupin.guest.domain import HIGHEST_INDEX, Domain, Memory
from emupin.guest.domainxml import read
from emupin.trail.entries import FORM

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cpus = frozenset[int]

HINT = "the entry may have been changed, or written by another version of emupin"

NEWER = {"interrupts": "", "extra_specs": None}
"""What emupin 0.1 did not look at, as its decisions came about."""
NEWER_USES = ("floating", "iothreads")
"""What it did not tell apart of what others have."""

NOWHERE = read(b"<domain><name>nobody</name></domain>", "nothing").layout
"""Facts have no bytes, and so no place of any element."""


def facts(entry: Mapping[str, Any]) -> Fields:
    """The facts of `entry`, which has some, in the present form. Raises HostError."""
    form = Fields(dict(entry), "entry").inner("facts")
    if form.values.get("form") == FORM:
        return form
    if "form" in form.values or not form.values.keys().isdisjoint(NEWER):
        form.refuse("form", f"must be {FORM}", HINT)
    return Fields({**form.values, **NEWER}, form.source, form.path)


def guest(entry: Mapping[str, Any]) -> Domain:
    """The guest that was decided for. Raises HostError where the entry cannot be right."""
    form, head = facts(entry), Fields(dict(entry), "entry")
    return Domain(
        kind=_text(form, "kind") or "",
        id=None,
        name=_text(head, "name") or "",
        uuid=_text(head, "uuid"),
        vcpus=_count(form, "vcpus"),
        offline=_cpus(form, "offline"),
        cpuset=_optional_cpus(form, "cpuset"),
        automatic=form.need("automatic", HINT) is True,
        vcpupins=_pins(form, "vcpupins"),
        emulatorpin=_optional_cpus(form, "emulatorpin"),
        iothreads=tuple(_list(form, "iothreads", int) or ()),
        iothreadpins=_pins(form, "iothreadpins"),
        realtime=_cpus(form, "realtime"),
        interfaces=_interfaces(form),
        flavor=_text(form, "flavor"),
        project=_text(form, "project"),
        extra_specs=_texts(form, "extra_specs"),
        layout=NOWHERE,
        partition=_text(form, "partition") if "partition" in form.values else None,
        numad=_optional_cpus(form, "numad") if "numad" in form.values else None,
        memory=_memory(form),
    )


def _memory(form: Fields) -> Memory:
    """Earlier versions recorded none. Raises HostError."""
    if form.values.get("memory") is None:
        return Memory()
    inner = form.inner("memory")
    pages = _list(inner, "hugepages", str, type(None)) or []
    return Memory(
        immediate=inner.need("immediate", HINT) is True,
        hugepages=tuple(None if each is None else inner.parse_cpus("hugepages", each) for each in pages),
        cells=tuple(_list(inner, "cells", int) or ()),
        mode=_text(inner, "mode"),
        automatic=inner.need("automatic", HINT) is True,
        nodes=_optional_cpus(inner, "nodes"),
        memnodes=_pins(inner, "memnodes"),
        devices=tuple(inner.parse_cpus("devices", each) for each in inner.values.get("devices", ())),
    )


def others(entry: Mapping[str, Any]) -> Others:
    """What the other guests had then. Raises HostError."""
    form = facts(entry)
    form.need("others", HINT)
    held = form.inner("others")
    known = [use for use in USES if "form" in form.values or use not in NEWER_USES]
    uses = {use: _by_guest(held, use) for use in known}
    vhost = _optional_cpus(held, "vhost") if "form" in form.values else None
    return Others(**uses, previous=_optional_cpus(held, "previous"), vhost=vhost, names=held.texts("names"))


def interrupts(entry: Mapping[str, Any]) -> Cpus:
    """The CPUs that handled interrupts of network cards then. Raises HostError."""
    return _cpus(facts(entry), "interrupts")


def problems(entry: Mapping[str, Any]) -> int:
    """How many of the warnings, the first ones, are about the policy file. Raises HostError."""
    return _count(facts(entry), "problems")


def _by_guest(held: Fields, use: str) -> dict[str, Cpus]:
    held.need(use, HINT)
    form = held.inner(use)
    return {owner: form.cpus(owner) for owner in form.values}


def _pins(form: Fields, key: str) -> dict[int, Cpus]:
    form.need(key, HINT)
    inner = form.inner(key)
    for number in inner.values:
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            inner.refuse(number, "is not a number", HINT)
    return {int(number): inner.cpus(number) for number in inner.values}


def _cpus(form: Fields, key: str) -> Cpus:
    return form.parse_cpus(key, form.need(key, HINT))


def _optional_cpus(form: Fields, key: str) -> Cpus | None:
    value = form.need(key, HINT)
    return None if value is None else form.parse_cpus(key, value)


def _text(form: Fields, key: str) -> str | None:
    return None if form.need(key, HINT) is None else form.text(key)


def _texts(form: Fields, key: str) -> dict[str, str] | None:
    if form.need(key, HINT) is None:
        return None
    inner = form.inner(key)
    return {name: inner.text(name) for name in inner.values}


def _count(form: Fields, key: str) -> int:
    value = form.need(key, HINT)
    if type(value) is not int or not 0 <= value <= HIGHEST_INDEX + 1:
        form.refuse(key, f"must be a number up to {HIGHEST_INDEX + 1}, is {kind(value)}", HINT)
    return value


def _list(form: Fields, key: str, *of: type) -> list[Any] | None:
    value = form.need(key, HINT)
    if value is not None and not (isinstance(value, list) and all(type(each) in of for each in value)):
        form.refuse(key, f"must be an array, is {kind(value)}", HINT)
    return value


def _interfaces(form: Fields) -> frozenset[str] | None:
    found = _list(form, "interfaces", str)
    return None if found is None else frozenset(found)
