"""The domain XML of one guest: from a file, from stdin, or libvirt's own of a running or a defined guest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import DomainError, EmupinError
from emupin.base.files import DEFINITIONS, LIBVIRT_RUN
from emupin.base.nearmiss import nearest
from emupin.guest import domainxml, statusxml
from emupin.guest.document import read_descriptor, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.guest.domain import Domain

FOLDERS = (LIBVIRT_RUN, DEFINITIONS)
"""Running guests first: theirs is what holds now."""

SUFFIX = ".xml"


def find(argument: str, root: str) -> tuple[Domain, str]:
    """The guest that `argument` names, and where its XML is. Raises EmupinError.

    `-` is stdin; what has a slash, or is there as a file, is a file; all else is a guest's name or UUID.
    """
    if argument == "-":
        return read_guest(_read_stdin(), argument), argument
    if "/" in argument or os.path.isfile(argument):
        return read_guest(_read(argument), argument), argument
    path = _by_name(argument, root) or _by_uuid(argument, root)
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


def _by_name(name: str, root: str) -> str | None:
    paths = (f"{root}{folder}/{name}{SUFFIX}" for folder in FOLDERS)
    return next((path for path in paths if os.path.isfile(path)), None)


def _by_uuid(text: str, root: str) -> str | None:
    """The XML of the guest with the UUID `text`, with or without its hyphens. Raises EmupinError."""
    digits = _digits(text)
    if len(digits) != 32 or digits.strip("0123456789abcdef"):
        return None
    for path in _paths(root):
        if _digits(_uuid(path)) == digits:
            return path
    return None


def _digits(uuid: str) -> str:
    return uuid.replace("-", "").strip().lower()


def _uuid(path: str) -> str:
    """The UUID in one of libvirt's own files, found without reading all of it; empty where there is none."""
    try:
        _, start, rest = read_file(path).partition(b"<uuid>")
    except FileNotFoundError:  # It ended meanwhile.
        return ""
    except OSError as error:
        raise EmupinError(path, f"cannot be read: {error.strerror}", "run it as root") from None
    return rest[:64].partition(b"<")[0].decode("ascii", "replace") if start else ""


def _paths(root: str) -> Iterator[str]:
    """libvirt's files of running and of defined guests. Raises EmupinError."""
    for folder in FOLDERS:
        try:
            names = sorted(os.listdir(root + folder))
        except FileNotFoundError:
            continue  # libvirt has not run yet, or nothing is defined.
        except OSError as error:
            raise EmupinError(root + folder, f"cannot be listed: {error.strerror}", "run it as root") from None
        yield from (f"{root}{folder}/{name}" for name in names if name.endswith(SUFFIX))


def _unknown(argument: str, root: str) -> EmupinError:
    names = {os.path.basename(path)[: -len(SUFFIX)] for path in _paths(root)}
    near = nearest(argument, sorted(names))
    meant = f"did you mean {near!r}?" if near else "`virsh list --all` shows the guests"
    count = f"{len(names)} guest{'' if len(names) == 1 else 's'}"
    return EmupinError(argument, f"no such file, nor a guest of that name or UUID among {count}", meant)
