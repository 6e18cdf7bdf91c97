"""The audit trails that arguments stand for: this host's, single files, or folders with those of many hosts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emupin.base.errors import EmupinError, HostError
from emupin.base.files import AUDIT, STATE, read_bytes
from emupin.base.text import printable
from emupin.trail.archive import Archive, beside
from emupin.trail.chain import verify
from emupin.trail.lines import DamagedError, age, entry, find, read_file
from emupin.trail.writer import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from emupin.trail.chain import Verdict
    from emupin.trail.lines import Line

    Report = Callable[[EmupinError], None]

NAME = os.path.basename(AUDIT)
HEAD_NAME = os.path.basename(HEAD)


@dataclass(frozen=True)
class Trail:
    """One host's trail: its files, the oldest first, and the folders where what it refers to may be kept."""

    files: tuple[str, ...]
    folders: tuple[str, ...]

    def entries(self, report: Report) -> Iterator[tuple[Line, dict[str, Any] | None]]:
        """Every line, and the entry that it holds, if it does. A damaged file goes to `report`. Raises HostError."""
        for path in self.files:
            try:
                for line in read_file(path):
                    yield line, entry(line.data)
            except DamagedError as error:
                report(error)

    def host(self) -> str:
        """The name that its first entry gives the host, or else the first file's. Raises HostError."""
        for _, value in self.entries(lambda _: None):
            if value is not None:
                name = value.get("host")
                return printable(name) if isinstance(name, str) and name else printable(self.files[0])
        return printable(self.files[0])

    def verdict(self) -> Verdict:
        """Whether the chain is whole. Raises HostError."""
        return verify(self.files, self._head())

    def _head(self) -> str | None:
        """The head that was kept beside the trail; None where there is none."""
        for folder in self.folders:
            try:
                return os.fsdecode(read_bytes(f"{folder}/{HEAD_NAME}", 64)) or None
            except FileNotFoundError:
                continue
            except OSError as error:
                raise HostError(f"{folder}/{HEAD_NAME}", f"cannot be read: {error.strerror}", "use sudo") from None
        return None

    def archive(self, more: Sequence[str] = ()) -> Archive:
        """The policies and topologies of the trail; `more` folders may have them, too."""
        return Archive([*more, *self.folders])


def find_trails(arguments: Sequence[str], root: str) -> list[Trail]:
    """The trails that `arguments` stand for, those of the host below `root` where there are none. Raises EmupinError.

    Files of one folder are one trail. A folder stands for every trail below it, links to folders left out.
    """
    if not arguments:
        files = find(root)
        if not files:
            raise EmupinError(root + AUDIT, "there is no audit trail", "name files, or folders with trails of hosts")
        return [Trail(tuple(files), (root + STATE,))]
    by_folder: dict[str, list[str]] = {}
    for argument in arguments:
        paths = list(_below(argument)) if os.path.isdir(argument) else [argument]
        if not paths:
            raise EmupinError(argument, f"there is no {NAME} below it", "give a folder with the trails of hosts")
        for path in paths:
            present = by_folder.setdefault(os.path.dirname(path) or ".", [])
            if path not in present:
                present.append(path)
    return [Trail(tuple(_by_age(paths)), beside(folder)) for folder, paths in by_folder.items()]


def _below(folder: str) -> Iterator[str]:
    """The files of all trails below `folder`. Raises EmupinError."""

    def refuse(error: OSError) -> None:
        raise EmupinError(str(error.filename), f"cannot be read: {error.strerror}", "the trail is root's: use sudo")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names) if age(name, NAME))


def _by_age(paths: Iterable[str]) -> list[str]:
    """The oldest first; files whose names do not tell stay ahead, in the order given."""
    return sorted(paths, key=lambda path: age(os.path.basename(path), NAME) or (-1, "", 0))
