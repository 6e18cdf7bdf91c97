"""The ledger's file, `/run/emupin/claims`: what a Book holds, in lines that every version of emupin reads.

It outlives what wrote it: an upgrade, another Python, a command line beside the hook. The first line names the
format's version, the last one the number of lines, and each begins with its kind. Kinds and trailing words that a
version does not know, it passes over. CPU sets are hexadecimal masks.
"""

from __future__ import annotations

from emupin.base.files import RUN, read_bytes, replace_file
from emupin.base.mask import from_mask
from emupin.base.system import os
from emupin.node.book import Book, Claim, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from emupin.node.book import Record

    Cpus = frozenset[int]

FILE = f"{RUN}/claims"
HEAD = "emupin-claims 2"
"""The first line. Version 1, of emupin 0.1, began with a digest of the rest, which was what `marshal` makes."""

QUOTED = {"%": "%25", " ": "%20", "\n": "%0a"}
"""Characters of a file name that mean something here."""


class Written:
    """The file as it was read: what has not changed since need not be spelt anew."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.lines: dict[str, tuple[Record, str]] = {}
        """Those of running guests, by status file, each with what it was read as."""


def load(root: str, book: Book) -> Written:
    """Fill an empty `book` from the ledger's file. One that is missing, torn, or from another boot says nothing."""
    try:
        data = read_bytes(root + FILE)
    except OSError:
        return Written()
    if data.startswith(HEAD.encode() + b"\n"):
        return _read(data, _boot(root), book)
    if not data.startswith(b"emupin-"):  # A later version's.
        from emupin.node import oldbook

        oldbook.read(data, _boot(root), book)
    return Written()


def promised(root: str, uuid: str) -> Cpus | None:
    """What the guest `uuid` was given last, no CPUs where that was taken back; None where there is no ledger to ask.

    A ledger that does not know the guest was lost since: its CPUs may be another's.
    """
    book = Book()
    if not load(root, book).data:
        return None
    claim = book.claims.get(uuid)
    return from_mask(claim.cpus) if claim else frozenset()


def save(root: str, book: Book, written: Written) -> None:
    """Write the file, unless it was `written` like that before. Raises OSError."""
    lines = _lines(book, _boot(root), written)
    data = os.fsencode("\n".join([*lines, f"end {len(lines)}\n"]))
    if data != written.data:
        replace_file(root + FILE, data, durable=False)


def _lines(book: Book, boot: str, written: Written) -> list[str]:
    lines = [HEAD, f"boot {boot}"]
    for name, record in book.records.items():
        known = written.lines.get(name)
        lines.append(known[1] if known and known[0] is record else _run(name, record))
    for uuid, claim in book.claims.items():
        cpus, former, alone = claim.cpus, claim.former, claim.former_alone
        apart = f"{claim.vhost:x} {claim.vhost_dedicated:d}"
        lines.append(f"claim {_quoted(uuid)} {cpus:x} {claim.dedicated:d} {claim.since!r} {former:x} {alone:x} {apart}")
    for uuid, start in book.starting.items():
        expected = f"{_masks(start.vcpus)} {start.iothreads:x} {start.emulator:x}"
        lines.append(f"start {_quoted(uuid)} {expected} {start.since!r} {_quoted(start.name)}")
    lines += [f"past {_quoted(uuid)} {cpus:x}" for uuid, cpus in book.history.items()]
    return lines


def _run(name: str, record: Record) -> str:
    uuid, (time, inode, size), pid, vcpus, iothreads, recorded, seen, floats = record
    threads = f"{_masks(vcpus)} {iothreads:x} {recorded:x} {seen:x} {floats:d}"
    return f"run {_quoted(name)} {_quoted(uuid)} {time} {inode} {size} {pid} {threads}"


def _read(data: bytes, boot: str, book: Book) -> Written:
    """Nothing, too, where the file has no end, or is whole and yet not written by emupin."""
    written, lines = Written(data), os.fsdecode(data).split("\n")
    if lines[1] != f"boot {boot}" or lines[-2:] != [f"end {len(lines) - 2}", ""]:
        return Written()
    try:
        for line in lines:
            words = line.split(" ")
            if words[0] == "run":
                name, record = _parsed_run(words)
                book.records[name], written.lines[name] = record, (record, line)
            elif words[0] in _TAKE:
                _TAKE[words[0]](book, words[1:])
    except ValueError:
        for part in (book.records, book.claims, book.starting, book.history):
            part.clear()
        return Written()
    return written


def _parsed_run(words: list[str]) -> tuple[str, Record]:
    _, name, uuid, time, inode, size, pid, pins, iothreads, recorded, seen, floats, *_ = words
    stamp = int(time), int(inode), int(size)
    vcpus = _parsed(pins) if "," in pins or pins == "-" else (int(pins, 16),)
    masks = int(iothreads, 16), int(recorded, 16), int(seen, 16)
    if "%" in name or "%" in uuid:
        name, uuid = _unquoted(name), _unquoted(uuid)
    return name, (uuid, stamp, int(pid), vcpus, *masks, floats == "1")


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
