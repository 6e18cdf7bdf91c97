"""The audit trails that arguments stand for: this host's, single files, or folders with those of many hosts."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emupin.base.errors import EmupinError, HostError
from emupin.base.files import AUDIT, STATE
from emupin.base.text import printable
from emupin.trail.archive import Archive, beside
from emupin.trail.chain import verify
from emupin.trail.lines import DamagedError, age, entry, find, identity, installed, read_file, whole
from emupin.trail.writer import HEAD, head_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from emupin.trail.findings import Verdict
    from emupin.trail.lines import Line

    Report = Callable[[EmupinError], None]

NAME = os.path.basename(AUDIT)
HEAD_NAME = os.path.basename(HEAD)


class Trail:
    """One host's trail: its files, the oldest first, and the folders where what it refers to may be kept."""

    def __init__(self, files: Sequence[str], folders: Sequence[str]) -> None:
        self.files, self.folders = tuple(files), tuple(folders)
        self._proved: dict[str, int | None] = {}
        """Which files `verdict` is about."""

    def entries(self, report: Report) -> Iterator[tuple[Line, dict[str, Any] | None]]:
        """Every line, with its entry where that is part of the chain. A damaged file goes to `report`.

        What no link vouches for may be anybody's work and is None, as are lines that are no entries. Raises HostError.
        """
        for line, value, is_proven in self.everything(report):
            yield line, value if is_proven else None

    def everything(self, report: Report) -> Iterator[tuple[Line, dict[str, Any] | None, bool]]:
        """Every line, the entry that it holds, and whether that is part of the chain. Raises HostError.

        Lines that came after the chain was proved are left out.
        """
        verdict = self.verdict
        for ordinal, line in enumerate(self._lines(report), 1):
            if ordinal > verdict.lines:
                return
            yield line, entry(line.data), verdict.proves(ordinal)

    def _lines(self, report: Report) -> Iterator[Line]:
        for path in self.files:
            try:
                yield from read_file(path, self._proved[path])
            except DamagedError as error:
                report(error)

    def host(self) -> str:
        """The name that its first entry gives the host, or else the first file's. Raises HostError."""
        for _, value in self.entries(lambda _: None):
            if value is not None:
                name = value.get("host")
                return printable(name) if isinstance(name, str) and name else printable(self.files[0])
        return printable(self.files[0])

    @functools.cached_property
    def verdict(self) -> Verdict:
        """Whether the chain is whole, and which lines are part of it. Raises HostError."""
        self._proved = {path: identity(path) for path in self.files}
        return verify(self.files, self._head())

    def _head(self) -> str | None:
        """The head that was kept beside the trail; None where there is none."""
        for folder in self.folders:
            try:
                return head_in(f"{folder}/{HEAD_NAME}")
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
            raise EmupinError(root + AUDIT, "there is no audit trail", "name files, or folders with trails")
        return [Trail(in_order(files), (root + STATE,))]
    by_folder: dict[str, list[str]] = {}
    for argument in arguments:
        paths = list(_below(argument)) if os.path.isdir(argument) else [argument]
        if not paths:
            raise EmupinError(argument, f"there is no {NAME} below it", "give a folder with the trails of hosts")
        for path in paths:
            present = by_folder.setdefault(os.path.dirname(path) or ".", [])
            if path not in present:
                present.append(path)
    return [Trail(in_order(paths), beside(folder)) for folder, paths in by_folder.items()]


def one_trail(files: Sequence[str], root: str) -> Trail:
    """The trail in `files`, in whatever folders they are; that of the host below `root` where there are none.

    Raises HostError where there is no trail.
    """
    if not files:
        return Trail(in_order(installed(root)), (root + STATE,))
    places = [folder for file in files for folder in beside(os.path.dirname(file))]
    return Trail(in_order(files), [*dict.fromkeys(places)])


def in_order(paths: Iterable[str]) -> list[str]:
    """The files of one trail, the oldest first, by what is in them: each goes on from the end of another.

    Where the links do not tell, the names do, as a rotation gives them, else the order given. Raises HostError.
    """
    by_name = sorted(dict.fromkeys(paths), key=_age)
    left = [_Ends.of(path) for path in by_name] if len(by_name) > 1 else []
    ordered: list[str] = []
    while left:
        ends = {digest for each in left for digest in each.digests}
        following: _Ends | None = next((each for each in left if each.previous not in ends - each.digests), left[0])
        while following:
            left.remove(following)
            ordered.append(following.path)
            digests = following.digests
            following = next((each for each in left if each.previous in digests), None)
    return ordered or by_name


@dataclass(frozen=True)
class _Ends:
    """How a file of a trail begins and ends."""

    path: str
    previous: str | None
    """What its first entry goes on from."""
    digests: frozenset[str]
    """The hashes of its last entry and of what stands behind that: one of them is what the next file goes on from."""

    @classmethod
    def of(cls, path: str) -> _Ends:
        """Raises HostError."""
        previous: str | None = None
        is_first = True
        tail: list[Line] = []
        try:
            for line in read_file(path):
                value = entry(line.data) if is_first else None
                if value:
                    previous, is_first = value["previous"], False
                tail = [line] if line.data.endswith(b"}\n") else [*tail, line]
        except DamagedError:  # Whoever reads the file says so.
            pass
        return cls(path, previous, frozenset(line.digest for line in tail))


def _below(folder: str) -> Iterator[str]:
    """The files of all trails below `folder`. Raises EmupinError."""

    def refuse(error: OSError) -> None:
        raise EmupinError(str(error.filename), f"cannot be read: {error.strerror}", "run it as root")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(whole(names)) if age(name, NAME))


def _age(path: str) -> tuple[int, str, int]:
    """What sorts files by name, the oldest first; those whose names do not tell stay ahead, in the order given."""
    return age(os.path.basename(path), NAME) or (-1, "", 0)
