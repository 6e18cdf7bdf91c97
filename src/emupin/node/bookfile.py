"""The ledger's file, `/run/emupin/claims`: what a Book holds, in lines that every version of emupin reads.

It outlives what wrote it: an upgrade, another Python, a command line beside the hook. The first line names the
format's version and the digest of the rest; each other one begins with its kind. Kinds and trailing words that a
version does not know, it passes over. CPU sets are hexadecimal masks.
"""

from __future__ import annotations

from emupin.base.digest import hex_digest
from emupin.base.files import RUN, read_bytes, replace_file
from emupin.base.system import os
from emupin.node.book import Claim, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from emupin.node.book import Book

FILE = f"{RUN}/claims"
HEAD = "emupin-claims 2"
"""How the file begins. Version 1, of emupin 0.1, began with the digest and was what `marshal` makes."""

QUOTED = {"%": "%25", " ": "%20", "\n": "%0a"}
"""Characters of a file name that mean something here."""


def load(root: str, book: Book) -> bytes:
    """Fill an empty `book` from the ledger's file; what the file holds, in this version's format.

    One that is missing, torn, or from another boot says nothing.
    """
    try:
        data = read_bytes(root + FILE)
    except OSError:
        return b""
    head, _, payload = data.partition(b"\n")
    words = os.fsdecode(head).split(" ")
    if words[-1] != hex_digest(payload):
        return b""
    if len(words) == 1:
        from emupin.node import oldbook

        oldbook.read(payload, _boot(root), book)
    elif " ".join(words[:-1]) == HEAD:  # Else a later version's.
        try:
            _read(os.fsdecode(payload), _boot(root), book)
        except ValueError:  # Whole, and yet not written by emupin.
            for part in (book.records, book.claims, book.starting, book.history):
                part.clear()
            return b""
        return payload
    return b""


def save(root: str, book: Book, written: bytes = b"") -> None:
    """Write the file, unless it was `written` like that before. Raises OSError."""
    payload = os.fsencode("\n".join(_lines(book, _boot(root))) + "\n")
    if payload != written:
        replace_file(root + FILE, f"{HEAD} {hex_digest(payload)}\n".encode() + payload, durable=False)


def _lines(book: Book, boot: str) -> list[str]:
    lines = [f"boot {boot}"]
    for name, (uuid, stamp, pid, vcpus, iothreads, recorded, seen, floats) in book.records.items():
        lines.append(
            f"run {_quoted(name)} {_quoted(uuid)} {stamp[0]} {stamp[1]} {stamp[2]} {pid} {_masks(vcpus)} "
            f"{iothreads:x} {recorded:x} {seen:x} {floats:d}"
        )
    for uuid, claim in book.claims.items():
        cpus, former, alone = claim.cpus, claim.former, claim.former_alone
        apart = f"{claim.vhost:x} {claim.vhost_dedicated:d}"
        lines.append(f"claim {_quoted(uuid)} {cpus:x} {claim.dedicated:d} {claim.since!r} {former:x} {alone:x} {apart}")
    for uuid, start in book.starting.items():
        expected = f"{_masks(start.vcpus)} {start.iothreads:x} {start.emulator:x}"
        lines.append(f"start {_quoted(uuid)} {expected} {start.since!r}")
    lines += [f"past {_quoted(uuid)} {cpus:x}" for uuid, cpus in book.history.items()]
    return lines


def _read(text: str, boot: str, book: Book) -> None:
    lines = text.split("\n")
    if lines[0] == f"boot {boot}":
        for line in lines[1:]:
            kind, *words = line.split(" ")
            if kind in _TAKE:
                _TAKE[kind](book, words)


def _take_run(book: Book, words: list[str]) -> None:
    name, uuid, time, inode, size, pid, vcpus, iothreads, recorded, seen, floats = words[:11]
    stamp = int(time), int(inode), int(size)
    masks = int(iothreads, 16), int(recorded, 16), int(seen, 16)
    book.records[_unquoted(name)] = _unquoted(uuid), stamp, int(pid), _parsed(vcpus), *masks, floats == "1"


def _take_claim(book: Book, words: list[str]) -> None:
    uuid, cpus, dedicated, since, former, alone = words[:6]
    vhost, vhost_dedicated = words[6:8] or ("0", "0")  # The first ones were written without.
    masks = int(former, 16), int(alone, 16), int(vhost, 16)
    book.claims[_unquoted(uuid)] = Claim(int(cpus, 16), dedicated == "1", float(since), *masks, vhost_dedicated == "1")


def _take_start(book: Book, words: list[str]) -> None:
    uuid, vcpus, iothreads, emulator, since = words[:5]
    book.starting[_unquoted(uuid)] = Start(_parsed(vcpus), int(iothreads, 16), int(emulator, 16), float(since))


def _take_past(book: Book, words: list[str]) -> None:
    uuid, cpus = words[:2]
    book.history[_unquoted(uuid)] = int(cpus, 16)


_TAKE: dict[str, Callable[[Book, list[str]], None]] = {
    "run": _take_run,
    "claim": _take_claim,
    "start": _take_start,
    "past": _take_past,
}


def _masks(masks: tuple[int, ...]) -> str:
    return ",".join([f"{mask:x}" for mask in masks]) or "-"


def _parsed(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple([int(mask, 16) for mask in text.split(",")])


def _quoted(name: str) -> str:
    for character, code in QUOTED.items():
        if character in name:
            name = name.replace(character, code)
    return name


def _unquoted(name: str) -> str:
    if "%" in name:
        for character, code in reversed(QUOTED.items()):
            name = name.replace(code, character)
    return name


def _boot(root: str) -> str:
    """Which boot of the host this is; empty where the kernel does not say."""
    try:
        return os.fsdecode(read_bytes(f"{root}/proc/sys/kernel/random/boot_id")).strip()
    except FileNotFoundError:
        return ""
