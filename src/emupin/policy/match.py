"""Which rule of a policy takes a guest."""

from __future__ import annotations

from emupin.guest.domain import of_one_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emupin.guest.domain import Domain
    from emupin.policy.values import Match, Policy, Rule

    Cores = Sequence[frozenset[int]]
    """The host's, by which a vCPU is pinned or floats; none where they are not known."""


def find_rule(guest: Domain, policy: Policy, cores: Cores) -> Rule | None:
    """The first rule whose `match` holds for `guest` on a host with `cores`."""
    for rule in policy.rules:
        if mismatch(guest, rule.match, cores) is None:
            return rule
    return None


def mismatch(guest: Domain, match: Match, cores: Cores) -> str | None:
    """Why `match` does not hold for `guest`, in a few words; None where it does."""
    for key, patterns, values in (
        ("name", match.name, (guest.name,)),
        ("uuid", match.uuid, (guest.uuid,)),
        ("flavor", match.flavor, (guest.flavor,)),
        ("project", match.project, (guest.project,)),
        ("interface", match.interface, guest.interfaces or ()),
    ):
        if patterns is not None and not _any_fits(values, patterns):
            found = ", ".join(repr(value) for value in sorted(filter(None, values))) or "none"
            return f"{key} is {found}, not {' or '.join(patterns)}"
    for key, wanted in (match.extra_specs or {}).items():
        value = (guest.extra_specs or {}).get(key)
        if not _any_fits((value,), wanted):
            found = "not there" if value is None else repr(value)
            return f"extra spec {key} is {found}, not {' or '.join(wanted)}"
    if match.pinned is not None and match.pinned != is_pinned(guest, cores):
        return "pinned is " + ("false" if match.pinned else "true")
    if match.realtime is not None and match.realtime != bool(guest.realtime):
        return "realtime is " + ("false" if match.realtime else "true")
    return None


def is_pinned(guest: Domain, cores: Cores) -> bool:
    """Whether every vCPU is pinned, each to CPUs of one core."""
    pins = {guest.vcpu_cpus(vcpu) or frozenset() for vcpu in range(guest.vcpus)}
    return len(of_one_core(pins, cores)) == len(pins)


def _any_fits(values: Iterable[str | None], patterns: tuple[str, ...]) -> bool:
    return any(fits(value, pattern) for value in values if value is not None for pattern in patterns)


def fits(text: str, pattern: str) -> bool:
    """Whether a shell pattern fits all of `text`, as `fnmatch.fnmatchcase` says.

    Written here because that module brings the regular expressions with it, half of the hook's start-up time.
    """
    if "[" not in pattern and "?" not in pattern:
        return _fits_pieces(text, *pattern.split("*"))
    at = spot = 0
    star, retry = -1, 0
    while at < len(text):
        step = _one(pattern, spot, text[at])
        if step:
            at, spot = at + 1, spot + step
        elif pattern[spot : spot + 1] == "*":
            star, retry = spot, at
            spot += 1
        elif star >= 0:
            retry += 1
            at, spot = retry, star + 1
        else:
            return False
    return not pattern[spot:].strip("*")


def _fits_pieces(text: str, first: str, *others: str) -> bool:
    """Whether `text` is `first` and then the `others`, with anything between each two."""
    if not others:
        return text == first
    *middle, last = others
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _one(pattern: str, spot: int, character: str) -> int:
    """How many characters of `pattern` from `spot` on fit one `character`; 0 where they do not."""
    first = pattern[spot : spot + 1]
    if first == "[":
        end = _bracket_end(pattern, spot)
        if end:
            negated = pattern[spot + 1] == "!"
            inside = _in_set(character, pattern[spot + 1 + negated : end])
            return end + 1 - spot if inside != negated else 0
    elif first == "*":
        return 0
    return 1 if first in ("?", character) else 0


def _bracket_end(pattern: str, spot: int) -> int:
    """Where the `]` of the set that opens at `spot` is; 0 where none is, and `[` means itself."""
    start = spot + 1 + (pattern[spot + 1 : spot + 2] == "!")
    return max(pattern.find("]", start + 1), 0)


def _in_set(character: str, members: str) -> bool:
    spot = 0
    while spot < len(members):
        if members[spot + 1 : spot + 2] == "-" and spot + 2 < len(members):
            if members[spot] <= character <= members[spot + 2]:
                return True
            spot += 3
        else:
            if members[spot] == character:
                return True
            spot += 1
    return False
