"""The `match` of a rule: patterns for what a guest is called, made of and connected to."""

from __future__ import annotations

import re

from emupin.base.nearmiss import near_miss, nearest
from emupin.grammar.nodes import show
from emupin.grammar.schema import Value
from emupin.policy.match import fits
from emupin.policy.values import Match

INTERFACES = (
    "bridge", "client", "direct", "ethernet", "hostdev", "internal", "mcast", "network", "null", "server", "udp",
    "user", "vdpa", "vds", "vhostuser",
)  # fmt: skip
"""The interface types of libvirt's schema."""

EXTRA_SPECS = (
    "hw:cpu_policy", "hw:cpu_thread_policy", "hw:cpu_dedicated_mask", "hw:cpu_realtime", "hw:cpu_realtime_mask",
    "hw:emulator_threads_policy", "hw:mem_page_size", "hw:numa_nodes", "hw:pci_numa_affinity_policy",
)  # fmt: skip
"""Nova's extra specs that a rule on CPUs may look at. Any other name is taken as well: operators have their own."""

FLAGS = ("pinned", "realtime")
WILDCARDS = frozenset("*?[")
HEXADECIMAL = frozenset("0123456789abcdef")
UUID = "5a3f0c1d-2233-4455-6677-88990aabbccd"
"""For example."""

MISREAD = {
    r"\\": ("a backslash, which stands for itself", "write [*], [?] or [[] for one of these characters itself"),
    r"\[\^": ("[^, which does not mean 'none of'", "write [!, as in [!a-z]"),
    r"\[([:.=])[^][]*\1\]": ("a class of characters, which is not known", "write the characters, as in [0-9a-f]"),
}
"""What bash reads otherwise than `fits`, by how it is found: what it is, and what to write."""


def read_match(value: Value) -> Match:
    """What a guest must be; the same as no `match` at all where `value` is an empty mapping."""
    match = Match()
    for key, field in value.mapping("rules[].match").items():
        if key in FLAGS:
            match = match.replace(**{key: field.boolean()})
        elif key == "extra_specs":
            match = match.replace(extra_specs=_extra_specs(field))
        else:
            match = match.replace(**{key: _patterns(key, field)})
    return match


def _extra_specs(field: Value) -> dict[str, tuple[str, ...]]:
    specs: dict[str, tuple[str, ...]] = {}
    entries = field.entries()
    for name, value in (entries or {}).items():
        meant = next((known for known in EXTRA_SPECS if known.endswith(f":{name}")), None)
        if name not in EXTRA_SPECS and (meant := meant or nearest(name, EXTRA_SPECS, 0.9)):
            value.complain("is not the name of an extra spec of Nova", f"did you mean {meant!r}?")
        specs[name] = _patterns(name, value)
    if entries == {}:
        field.complain("is an empty mapping", "name at least one, or remove the key")
    return specs


def takes_every_guest(match: Match) -> bool:
    """Whether no guest can fail it: every guest has a name, and nothing else for sure."""
    return match.replace(name=None) == Match() and (match.name is None or "*" in match.name)


def _patterns(key: str, field: Value) -> tuple[str, ...]:
    patterns: dict[str, None] = {}
    for item in field.one_or_list():
        pattern = _pattern(key, item, item.text())
        if pattern and pattern in patterns:
            item.complain(f"{show(pattern)!r} is listed twice", "remove one")
        patterns[pattern] = None
    return tuple(patterns)


def _pattern(key: str, item: Value, text: str) -> str:
    misread = next((says for form, says in MISREAD.items() if re.search(form, text)), None)
    if "[" in text and "]" not in text[text.rindex("[") :]:
        item.complain(f"the [ in {show(text)!r} is never closed", "write [0-9] for one of a set, [[] for [ itself")
    elif misread:
        item.complain(f"{show(text)!r} has {misread[0]}", misread[1])
    elif key == "uuid" and text:
        return _uuid(item, text)
    elif key == "project":
        return _hexadecimal(text) or text
    elif key == "interface" and text and text not in INTERFACES and WILDCARDS.isdisjoint(text):
        item.complain(f"libvirt has no interface type {show(text)!r}", near_miss(text, INTERFACES))
    return text


def _uuid(item: Value, text: str) -> str:
    """A UUID as libvirt prints it, or a pattern for one, in lower case."""
    if not WILDCARDS.isdisjoint(text):
        if not _fits_some_uuid(text.lower()):
            hint = f"libvirt prints hexadecimal digits and hyphens, as in {UUID}"
            item.complain(f"no UUID matches {show(text)!r}", hint)
        return text.lower()
    digits = _hexadecimal(text)
    if digits is None:
        hint = "a UUID has 32 hexadecimal digits; `virsh domuuid` prints a guest's"
        item.complain(f"{show(text)!r} is not a UUID", hint)
        return text
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _hexadecimal(text: str) -> str | None:
    """The digits of a UUID, in lower case and without hyphens, as Nova prints a project's; None where it is none."""
    digits = text.replace("-", "").lower()
    return digits if len(digits) == 32 and HEXADECIMAL.issuperset(digits) else None


def _fits_some_uuid(pattern: str) -> bool:
    """Whether `pattern` fits any UUID: one with some digit at each place, or the hyphen that belongs there."""
    ends = {0}  # Of the part of a UUID that the pieces so far fit.
    for piece in re.findall(r"\[!?.[^]]*\]|.", pattern):
        if piece == "*":
            ends = set(range(min(ends, default=len(UUID) + 1), len(UUID) + 1))
        else:
            ends = {at + 1 for at in ends if at < len(UUID) and _fits_at(at, piece)}
    return len(UUID) in ends


def _fits_at(place: int, piece: str) -> bool:
    return any(fits(each, piece) for each in ("-" if UUID[place] == "-" else HEXADECIMAL))
