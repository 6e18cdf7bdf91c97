"""The ledger's files: what a Book holds.

`/run/emupin/claims` has what nothing else on the host tells, in lines that every version of emupin reads: it outlives
what wrote it, an upgrade, another Python, a command line beside the hook. The first line names the format's version,
the last one the number of lines, and each begins with its kind. Kinds and trailing words that a version does not know,
it passes over. CPU sets are hexadecimal masks.

`/run/emupin/guests` is a cache of what the status files and the threads of the running guests said. It is this Python's
alone, and worth nothing without the claims.
"""

from __future__ import annotations

from emupin.base import cached
from emupin.base.files import RUN, read_bytes, replace_file
from emupin.base.mask import to_mask
from emupin.base.system import os
from emupin.node.book import Book, Claim, RunningGuest, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emupin.node.book import Record

    Cpus = frozenset[int]

FILE, CACHE = f"{RUN}/claims", f"{RUN}/guests"
HEAD = "emupin-claims 2"
"""The first line. Version 1, of emupin 0.1, began with a digest of the rest, which was what `marshal` makes."""

QUOTED = {"%": "%25", " ": "%20", "\n": "%0a"}
"""Characters of a guest's name that mean something here."""


class Written:
    """What the files hold: what has not changed since need not be written."""

    def __init__(self, data: bytes = b"", records: Mapping[str, Record] | None = None) -> None:
        self.data = data
        self.records = records or {}


def load(root: str, book: Book) -> Written:
    """Fill an empty `book` from the ledger's file. One that is missing, torn, or from another boot says nothing."""
    try:
        data = read_bytes(root + FILE)
    except OSError:
        return Written()
    boot = _boot(root)
    if data.startswith(HEAD.encode() + b"\n"):
        if not _read(data, boot, book):
            return Written()
        book.records = cached.read(root + CACHE, _about(boot)) or {}
        return Written(data, book.records)
    if not data.startswith(b"emupin-"):  # A later version's.
        from emupin.node import oldbook

        oldbook.read(data, boot, book)
    return Written()


def _about(boot: str) -> tuple[object, ...]:
    """What cached records must have been written about."""
    return RunningGuest._fields, boot


def stands(root: str, uuid: str, cpus: Cpus) -> bool:
    """Whether the guest `uuid`, which was given `cpus` once, has them still.

    Where the ledger does not know it, since it was lost or could not be written, it has them unless another guest has
    some of them alone.
    """
    book, wanted = Book(), to_mask(cpus)
    load(root, book)
    claim = book.claims.get(uuid)
    return claim.cpus == wanted if claim else not any(other.alone & wanted for other in book.claims.values())


def save(root: str, book: Book, written: Written) -> None:
    """Write what has changed. Raises OSError.

    The claims first: a guest that is known, and whose claim is not, would never be adopted.
    """
    boot = _boot(root)
    lines = _lines(book, boot)
    data = os.fsencode("\n".join([*lines, f"end {len(lines)}\n"]))
    if data != written.data:
        replace_file(root + FILE, data, durable=False)
    if book.records != written.records:
        cached.keep(root + CACHE, _about(boot), book.records)


def _lines(book: Book, boot: str) -> list[str]:
    lines = [HEAD, f"boot {boot}"]
    for uuid, claim in book.claims.items():
        cpus, former, alone = claim.cpus, claim.former, claim.former_alone
        apart = f"{claim.vhost:x} {claim.vhost_dedicated:d}"
        lines.append(f"claim {_quoted(uuid)} {cpus:x} {claim.dedicated:d} {claim.since!r} {former:x} {alone:x} {apart}")
    for uuid, start in book.starting.items():
        expected = f"{_masks(start.vcpus)} {start.iothreads:x} {start.emulator:x}"
        lines.append(f"start {_quoted(uuid)} {expected} {start.since!r} {_quoted(start.name)}")
    lines += [f"past {_quoted(uuid)} {cpus:x}" for uuid, cpus in book.history.items()]
    return lines


def _read(data: bytes, boot: str, book: Book) -> bool:
    """Whether it could be: not where the file has no end, or is whole and yet not written by emupin."""
    lines = os.fsdecode(data).split("\n")
    if lines[1] != f"boot {boot}" or lines[-2:] != [f"end {len(lines) - 2}", ""]:
        return False
    try:
        for line in lines:
            kind, *words = line.split(" ")
            if kind in _TAKE:
                _TAKE[kind](book, words)
    except ValueError:
        for part in (book.claims, book.starting, book.history):
            part.clear()
        return False
    return True


def _take_claim(book: Book, words: list[str]) -> None:
    uuid, cpus, dedicated, since, former, alone = words[:6]
    vhost, vhost_dedicated = words[6:8] or ("0", "0")  # The first ones were written without.
    masks = int(former, 16), int(alone, 16), int(vhost, 16)
    book.claims[_unquoted(uuid)] = Claim(int(cpus, 16), dedicated == "1", float(since), *masks, vhost_dedicated == "1")


def _take_start(book: Book, words: list[str]) -> None:
    uuid, vcpus, iothreads, emulator, since, *name = words[:6]
    start = Start(_parsed(vcpus), int(iothreads, 16), int(emulator, 16), float(since), *map(_unquoted, name))
    book.starting[_unquoted(uuid)] = start


def _take_past(book: Book, words: list[str]) -> None:
    uuid, cpus = words[:2]
    book.history[_unquoted(uuid)] = int(cpus, 16)


_TAKE: dict[str, Callable[[Book, list[str]], None]] = {"claim": _take_claim, "start": _take_start, "past": _take_past}


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
