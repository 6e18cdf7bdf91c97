"""The ledger's file as emupin 0.1 wrote it, for an upgrade while guests run."""

from __future__ import annotations

import marshal

from emupin.base.digest import hex_digest
from emupin.node.book import Book, Claim, Start


def read(data: bytes, boot: str, book: Book) -> None:
    """Fill `book` with what it says of claims, unless it is another boot's; the running guests are read anew.

    Alone is all that a guest had before: 0.1 did not tell which of it was.
    """
    digest, _, payload = data.partition(b"\n")
    if digest != hex_digest(payload).encode():
        return
    try:
        _, its_boot, _, claims, starting, history = marshal.loads(payload)
    except (EOFError, ValueError, TypeError):  # Of an interpreter with another format.
        return
    if its_boot == boot:
        for uuid, (cpus, dedicated, since, former) in claims.items():
            book.claims[uuid] = Claim(cpus, dedicated, since, former, former)
        book.starting = {uuid: Start((vcpus,), 0, 0, since) for uuid, (vcpus, since) in starting.items()}
        book.history = history
