"""All partitions of a machine that are there: what `confinement` says of each, and how their names are made out."""

from __future__ import annotations

from emupin.base.files import list_folder
from emupin.base.system import os
from emupin.engine import confinement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Cpus = frozenset[int]


def read_all(root: str) -> dict[str, Cpus]:
    """What guests may have in each partition that is there, and in the default one. Raises HostError."""
    found = confinement.version(root)
    if found is None:
        return {}
    top, _ = confinement.HIERARCHIES[found]
    below = _partitions_of_slices if confinement.has_slices(root) else _partitions_of_folders
    names = dict.fromkeys(("/", confinement.DEFAULT, *below(root + top, "")))
    return {name: cpus for name in names if (cpus := confinement.read(root, name))}


def _partitions_of_slices(folder: str, _above: str) -> Iterator[str]:
    """The partitions that slices in `folder` and below are, by their own names. Raises HostError."""
    for name in list_folder(folder):
        if name.endswith(".slice"):
            yield _partition_of(name)
            yield from _partitions_of_slices(f"{folder}/{name}", "")


def _partitions_of_folders(folder: str, above: str) -> Iterator[str]:
    """The partitions that cgroups in `folder` and below are. Raises HostError."""
    for name in list_folder(folder):
        if name.endswith(".partition") or (not above and name in confinement.FIXED):
            partition = f"{above}/{name.removesuffix('.partition').removeprefix('_')}"
            yield partition
            yield from _partitions_of_folders(f"{folder}/{name}", partition)


def _partition_of(name: str) -> str:
    """The partition that a slice is: the inverse of `_slices` in `confinement`."""
    first, *rest = name.removesuffix(".slice").replace("-", "/").split("\\x")
    data = os.fsencode(first) + b"".join(bytes.fromhex(each[:2]) + os.fsencode(each[2:]) for each in rest)
    return "/" + os.fsdecode(data)
