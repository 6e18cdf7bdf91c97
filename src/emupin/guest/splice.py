"""Put pins into a domain XML by changing the bytes of those pins and no other byte.

A pin that is there gets a new value between its own quotes. One that is not goes where libvirt itself would print it,
on a line of its own, indented, quoted and ended as its neighbours are.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.frozen import Frozen
from emupin.guest.domain import EMULATOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emupin.guest.domain import Domain, Layout
    from emupin.guest.xmltree import Element


class Edit(Frozen):
    """Replace the bytes from `start` up to, not including, `end`."""

    start: int
    end: int
    new: bytes


def rewrite(data: bytes, domain: Domain, emulator: frozenset[int], follow: bool = False) -> bytes:
    """`data`, the document that `domain` was read from, with its emulator threads pinned to the CPUs `emulator`.

    If the iothreads `follow`, each of them too. The same object where all those pins already name that set, however
    it is written.
    """
    changes = edits(data, domain, emulator, follow)
    return apply(data, changes) if changes else data


def edits(data: bytes, domain: Domain, emulator: frozenset[int], follow: bool = False) -> list[Edit]:
    """What `rewrite` changes; nothing where all pins already name that set.

    libvirt prints `<emulatorpin>`, then an `<iothreadpin>` for each iothread in their order: pins that are missing go
    behind the last one ahead of them that is there.
    """
    layout, cpus = domain.layout, cpuset.format(emulator).encode()
    wanted = [(EMULATOR, domain.emulatorpin, layout.emulatorpin)]
    if follow:
        pins, places = domain.iothreadpins, layout.iothreadpins(domain.iothreadpins)
        wanted += [(str(each), pins.get(each), places.get(each)) for each in domain.iothreads]
    changes: list[Edit] = []
    ahead, missing = None, []
    for thread, pin, element in wanted:
        if element is None:
            missing.append(thread)
            continue
        if missing:
            changes.append(_insert(data, layout, ahead, missing, cpus))
        ahead, missing = element, []
        if pin != emulator:
            changes.append(Edit(*attribute_value(data, element.start, b"cpuset"), cpus))
    return [*changes, _insert(data, layout, ahead, missing, cpus)] if missing else changes


def give_way(data: bytes, domain: Domain, pins: Mapping[str, frozenset[int] | None]) -> list[Edit]:
    """What has those of the `pins` that are there, by whose they are, name other CPUs, or go with the line they start.

    One goes where `pins` has None for it.
    """
    layout = domain.layout
    places = {str(key): element for key, element in layout.iothreadpins(domain.iothreadpins).items()}
    if layout.emulatorpin:
        places[EMULATOR] = layout.emulatorpin
    return [_replacement(data, places[key], cpus) for key, cpus in pins.items() if key in places]


def _replacement(data: bytes, element: Element, cpus: frozenset[int] | None) -> Edit:
    if cpus:
        return Edit(*attribute_value(data, element.start, b"cpuset"), cpuset.format(cpus).encode())
    return Edit(element.start - len(_line_start(data, element.start)), element_end(data, element), b"")


def apply(data: bytes, changes: Iterable[Edit]) -> bytes:
    """`data` with the `changes`, which do not overlap."""
    pieces, position = [], 0
    for edit in sorted(changes, key=lambda edit: edit.start):
        pieces += [data[position : edit.start], edit.new]
        position = edit.end
    return b"".join([*pieces, data[position:]])


def cputune_diff(data: bytes, domain: Domain, changes: list[Edit]) -> list[str]:
    """The lines of `<cputune>` that `changes` make differ, with `-` or `+` in front as a diff has them.

    Never a byte from outside `<cputune>`, not even from its line: a domain XML carries passwords.
    """
    cputune = domain.layout.cputune
    if cputune:
        start = cputune.start
        old = data[start : element_end(data, cputune)]
        new = apply(old, [Edit(edit.start - start, edit.end - start, edit.new) for edit in changes])
    else:
        old, new = b"", b"".join(edit.new for edit in changes)
        new = new[new.find(b"<cputune") : new.rfind(b"</cputune>") + len(b"</cputune>")]
    before, after = (part.decode("utf-8", "backslashreplace").splitlines() for part in (old, new))
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return [f"-{line}" for line in before] + [f"+{line}" for line in after]


def _insert(data: bytes, layout: Layout, ahead: Element | None, threads: list[str], cpus: bytes) -> Edit:
    """Pins for `threads` behind the pin `ahead`, or, where there is none, where libvirt prints the first of them."""
    ahead = ahead or layout.before_emulatorpin
    first = layout.tunes[0] if layout.tunes else None
    near = ahead or first or layout.cputune or layout.before_cputune
    quote = _quote(data, layout, near)
    pins = [_pin(thread, cpus, quote) for thread in threads]
    line = _line_start(data, near.start) if near else b""
    if ahead:
        return _behind(data, ahead, line.join(pins))
    if first:
        return Edit(first.start, first.start, b"".join([pin + line for pin in pins]))
    inside = _deeper(data, layout, line)
    content = b"".join([inside + pin for pin in pins])
    if layout.cputune:
        return _fill(data, layout.cputune, content, line)
    cputune = b"<cputune>%s%s</cputune>" % (content, line)
    if layout.before_cputune:
        return _behind(data, layout.before_cputune, cputune)
    return _fill(data, layout.domain, cputune, b"")


def _pin(thread: str, cpus: bytes, quote: bytes) -> bytes:
    """A pin of an iothread, by its number, or of EMULATOR."""
    if thread == EMULATOR:
        return b"<emulatorpin cpuset=%s%s%s/>" % (quote, cpus, quote)
    return b"<iothreadpin iothread=%s%b%s cpuset=%s%s%s/>" % (quote, thread.encode(), quote, quote, cpus, quote)


def _behind(data: bytes, element: Element, new: bytes) -> Edit:
    """`new` on the line below `element`, and below a comment that starts on the element's line and ends its own."""
    end, line = element_end(data, element), _line_start(data, element.start)
    rest = data[end:].lstrip(b" \t")
    if line and rest.startswith(b"<!--"):
        rest = rest[rest.index(b"-->") + 3 :]
        if rest.lstrip(b" \t")[:1] in (b"\n", b"\r"):
            end = len(data) - len(rest)
    return Edit(end, end, line + new)


def _fill(data: bytes, element: Element, new: bytes, line: bytes) -> Edit:
    """`new` as the first content of `element`, which has no child elements; `line` starts its end tag's line."""
    inside = tag_end(data, element.start)
    if data[inside - 2 : inside] == b"/>":
        return Edit(inside - 2, inside, b">%s%s</%s>" % (new, line, element.name.encode()))
    ends_line = data[inside : inside + 1] in (b"\n", b"\r")
    return Edit(inside, inside, new if ends_line else new + line)


def _line_start(data: bytes, start: int) -> bytes:
    """The line end and the blanks in front of the element at `start`; empty where something else is on its line."""
    first = start
    while data[first - 1 : first] in (b" ", b"\t"):
        first -= 1
    if data[first - 2 : first] == b"\r\n":
        return data[first - 2 : start]
    return data[first - 1 : start] if data[first - 1 : first] in (b"\n", b"\r") else b""


def _deeper(data: bytes, layout: Layout, line: bytes) -> bytes:
    """`line`, the start of the line of a child of `<domain>`, one level deeper; empty if it is."""
    before = data[: layout.domain.start].removeprefix(b"\xef\xbb\xbf")
    outer = _line_start(data, layout.domain.start).strip(b"\r\n") if before.strip(b" \t") else before
    blanks = line.strip(b"\r\n")
    return line + blanks[len(outer) :] if blanks.startswith(outer) else line


def _quote(data: bytes, layout: Layout, neighbour: Element | None) -> bytes:
    """The quote that the tag of `neighbour` uses first, or else that of `<domain>`; libvirt's own is a single one."""
    for start in (neighbour.start if neighbour else layout.domain.start, layout.domain.start):
        tag = data[start : tag_end(data, start)]
        double, single = tag.find(b'"'), tag.find(b"'")
        if double != single:
            return b'"' if double >= 0 and (single < 0 or double < single) else b"'"
    return b"'"


def attribute_value(data: bytes, start: int, name: bytes) -> tuple[int, int]:
    """Where the value of attribute `name` of the tag at `start` begins and ends, between its quotes.

    The tag must be well-formed and have the attribute: a parser has seen both.
    """
    while True:
        equals = data.index(b"=", start)
        found = data[start:equals].split()[-1]
        opening = equals + 1
        while data[opening : opening + 1] not in (b"'", b'"'):
            opening += 1
        closing = data.index(data[opening : opening + 1], opening + 1)
        if found == name:
            return opening + 1, closing
        start = closing + 1


def tag_end(data: bytes, start: int) -> int:
    """The offset just behind the `>` of the tag that starts at `start`; a `>` inside quotes does not count."""
    position = start
    while True:
        close = data.index(b">", position)
        double, single = data.find(b'"', position, close), data.find(b"'", position, close)
        if double < 0 and single < 0:
            return close + 1
        opening = single if double < 0 or 0 <= single < double else double
        position = data.index(data[opening : opening + 1], opening + 1) + 1


def element_end(data: bytes, element: Element) -> int:
    """The offset just behind `element`.

    At the end of `<a/>` expat's index is behind the element already, at the end of `<a></a>` in front of `</a>`.
    """
    end = tag_end(data, element.start)
    return end if data[end - 2 : end] == b"/>" else data.index(b">", element.index) + 1
