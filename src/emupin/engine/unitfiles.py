"""What systemd's unit files take from a slice that is not active yet. Source: systemd.unit(5), systemd.syntax(7).

systemd leaves out a line with a value that it cannot read, and says so in its journal: so does this.
"""

from __future__ import annotations

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.base.files import list_folder
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Cpus = frozenset[int]

UNITS = tuple(
    f"{place}/systemd/{kind}"
    for kind, places in (("system.control", ("/etc", "/run")), ("system", ("/etc", "/run", "/usr/lib", "/lib")))
    for place in places
)
"""Where systemd has its unit files, the ones that win first."""


def allowed_cpus(root: str, unit: str) -> Cpus | None:
    """`AllowedCPUs=` of a slice that is not active yet, from its unit file and drop-ins; None where they have none."""
    allowed: set[int] = set()
    for path in (*_first(root, unit), *_drop_ins(root, unit)):
        for line in _lines(path):
            key, _, value = line.partition("=")
            if key.strip() == "AllowedCPUs":
                allowed = allowed | _cpu_list(value) if value.strip() else set()
    return frozenset(allowed) or None


def _first(root: str, unit: str) -> Sequence[str]:
    return [path for place in UNITS if os.path.isfile(path := f"{root}{place}/{unit}")][:1]


def _drop_ins(root: str, unit: str) -> list[str]:
    """By their names, whatever folder they are in; of two with the same name the one in the folder that wins."""
    found: dict[str, str] = {}
    for place in UNITS:
        folder = f"{root}{place}/{unit}.d"
        for name in list_folder(folder):
            if name.endswith(".conf"):
                found.setdefault(name, f"{folder}/{name}")
    return [found[name] for name in sorted(found)]


def _lines(path: str) -> list[str]:
    """A line that ends in a backslash goes on in the next one. Raises HostError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().replace("\\\n", " ").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(path, f"cannot be read: {error.strerror}", "run it as root") from None


def _cpu_list(value: str) -> Cpus:
    """systemd takes blanks for commas."""
    try:
        return cpuset.parse(",".join(value.replace(",", " ").split()))
    except cpuset.CpuListError:
        return frozenset()
