"""The domain XML of one guest: from a file, from stdin, or libvirt's own of a running or a defined guest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import DomainError, EmupinError
from emupin.base.nearmiss import nearest
from emupin.guest import domainxml, statusxml
from emupin.guest.document import read_descriptor, read_file
from emupin.node.guestfiles import SUFFIX, by_name, by_uuid, paths

if TYPE_CHECKING:
    from emupin.guest.domain import Domain


def find(argument: str, root: str) -> tuple[Domain, str]:
    """The guest that `argument` names, and where its XML is. Raises EmupinError.

    `-` is stdin; what has a slash, or is there as a file, is a file; all else is a guest's name or UUID.
    """
    if argument == "-":
        return read_guest(_read_stdin(), argument), argument
    if "/" in argument or os.path.isfile(argument):
        return read_guest(_read(argument), argument), argument
    path = by_name(argument, root) or by_uuid(argument, root)
    if path is None:
        raise _unknown(argument, root)
    return read_guest(_read(path), path), path


def read_guest(data: bytes, source: str, sections: frozenset[str] = domainxml.LONG_SECTIONS) -> Domain:
    """The guest of a domain XML, or of libvirt's status XML of a running one. Raises DomainError."""
    try:
        return domainxml.read(data, source, sections)
    except DomainError:
        if b"<domstatus" in data:
            return statusxml.read(data, source, sections).domain
        raise


def _read_stdin() -> bytes:
    """Raises EmupinError."""
    try:
        return read_descriptor(streams.STDIN)
    except OSError as error:
        raise EmupinError("stdin", f"cannot be read: {error.strerror}", "send a domain XML to it") from None


def _read(path: str) -> bytes:
    """Raises EmupinError."""
    try:
        return read_file(path)
    except OSError as error:
        raise EmupinError(path, f"cannot be read: {error.strerror}", "give a domain XML, or a guest's name") from None


def _unknown(argument: str, root: str) -> EmupinError:
    names = {os.path.basename(path)[: -len(SUFFIX)] for path in paths(root)}
    near = nearest(argument, sorted(names))
    meant = f"did you mean {near!r}?" if near else "`virsh list --all` shows the guests"
    count = f"{len(names)} guest{'' if len(names) == 1 else 's'}"
    return EmupinError(argument, f"no such file, nor a guest of that name or UUID among {count}", meant)
