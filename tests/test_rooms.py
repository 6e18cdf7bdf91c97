"""The architecture: every module has its room, and no import runs upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src" / "emupin"

FLOORS = (
    ("base",),
    ("guest",),
    ("policy",),
    ("engine",),
    ("grammar",),
    ("node",),
    ("trail",),
    ("bundle", "order", "trouble"),
    ("recording",),
    ("hook", "recorder"),
    ("trace",),
    ("live",),
    ("screen",),
    ("doctor", "report"),
    ("fleet",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""The rooms from the ground up: a module imports from its own room and from the floors below."""

MODULES = sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def room_of(name: str) -> str:
    """`emupin.base.cpuset` is in `base`."""
    return name.split(".")[1]


def imported(path: Path) -> Iterator[str]:
    """The project's own modules that a module imports, wherever in it, those for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "emupin" else [node.module]
            )
            yield from (name for name in names if name.startswith("emupin.") and name != "emupin.__version__")
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("emupin."))


def own_room(path: Path) -> str:
    return path.relative_to(SOURCES).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_import_runs_upwards(path: Path) -> None:
    here = own_room(path)
    upwards = [name for name in imported(path) if room_of(name) != here and floor(room_of(name)) >= floor(here)]
    assert upwards == []


def test_every_room_is_on_a_floor_and_every_floor_has_its_rooms() -> None:
    there = {own_room(path) for path in MODULES}
    assert sorted(room for rooms in FLOORS for room in rooms) == sorted(there)


def test_a_module_is_of_a_size_that_one_reads_in_one_go() -> None:
    long = {str(path.relative_to(SOURCES)): lines(path) for path in MODULES if lines(path) > 300}
    assert long == {}


def lines(path: Path) -> int:
    return path.read_text().count("\n")
