"""The files that arguments stand for: files as they are, folders with every `*.xml` below them, each file once."""

from __future__ import annotations

import os

from emupin.base.errors import EmupinError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Report = Callable[[EmupinError], None]

SUFFIX = ".xml"

NETWORKS = "/qemu/networks"
"""How the folder ends that libvirt keeps its networks in, below the definitions of its guests."""


def files(arguments: Iterable[str], report: Report) -> Iterator[str]:
    """The path of each file, found as late as possible, in the order of the arguments and sorted within a folder.

    Hidden files, links to folders and libvirt's networks are skipped below a folder. What cannot be read goes to
    `report`.
    """
    walk = _Walk(report)
    for argument in arguments:
        if os.path.isdir(argument):
            yield from walk.argument_folder(argument)
        elif walk.is_new(os.path.realpath(argument)):
            yield argument


class _Walk:
    """What was seen so far: the folders that were given, and files that are reached by more than one way.

    Files found in a folder are not remembered, they would be many: whether one was seen follows from its path.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.folders: set[str] = set()
        self.files: set[str] = set()

    def is_new(self, real: str) -> bool:
        """Whether the file `real` was not seen before; it is now."""
        if real in self.files or self.is_covered(real):
            return False
        self.files.add(real)
        return True

    def is_covered(self, real: str) -> bool:
        """Whether the walk through one of the folders comes, or came, across the file `real`."""
        folder, _, name = real.rpartition("/")
        return name.endswith(SUFFIX) and not name.startswith(".") and self.is_walked(folder or "/")

    def is_walked(self, folder: str) -> bool:
        """Whether `folder` is one of the folders, or below one without one between that is skipped."""
        while folder not in self.folders:
            skipped = folder.endswith(NETWORKS)
            folder, _, name = folder.rpartition("/")
            if skipped or not name or name.startswith("."):
                return False
            folder = folder or "/"
        return True

    def argument_folder(self, folder: str) -> Iterator[str]:
        real = os.path.realpath(folder)
        if not self.is_walked(real):
            inner = frozenset(self.folders)
            self.folders.add(real)
            yield from self.below(folder.rstrip("/") or "/", real, inner)

    def below(self, folder: str, real: str, done: frozenset[str]) -> Iterator[str]:
        """The files of `folder`, whose real path is `real`, and of the folders in it that are not `done`."""
        try:
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            self.report(EmupinError(folder, f"cannot be read: {error.strerror}"))
            return
        for entry in visible:
            inner = f"{real.rstrip('/')}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if inner not in done and not inner.endswith(NETWORKS):
                    yield from self.below(entry.path, inner, done)
            elif entry.name.endswith(SUFFIX) and self.is_wanted(entry, inner):
                yield entry.path

    def is_wanted(self, entry: os.DirEntry[str], real: str) -> bool:
        """Whether a regular file, or a link to one that no walk comes across by itself, is still to be done."""
        if entry.is_symlink():
            return entry.is_file() and self.is_new(os.path.realpath(entry.path))
        return entry.is_file() and real not in self.files
