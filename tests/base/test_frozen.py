"""Immutable values: construction, comparison, and that they stay as they are."""

from __future__ import annotations

import copy

import pytest

from emupin.base.frozen import Frozen


class Point(Frozen):
    x: int
    y: int = 2
    names: tuple[str, ...] = ()


class Other(Frozen):
    x: int
    y: int = 2
    names: tuple[str, ...] = ()


def test_fields_by_position_and_by_name() -> None:
    assert Point(1, 5, ("a",)) == Point(names=("a",), y=5, x=1) == Point(1, names=("a",), y=5)


def test_defaults() -> None:
    assert (Point(1).y, Point(1).names) == (2, ())


@pytest.mark.parametrize(
    ("args", "kwargs", "fields"),
    [
        ((), {}, "x"),
        ((1, 2, (), 4), {}, "too many"),
        ((1,), {"x": 1}, "x"),
        ((1,), {"z": 1}, "z"),
        ((), {"z": 1}, "z, x"),
    ],
)
def test_wrong_fields(args: tuple[object, ...], kwargs: dict[str, object], fields: str) -> None:
    with pytest.raises(TypeError, match=f"^Point: wrong or missing fields: {fields}$"):
        Point(*args, **kwargs)  # type: ignore[arg-type]


def test_immutable() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is immutable"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is immutable"):
        del point.x
    with pytest.raises(AttributeError, match="Point is immutable"):
        point.other = 3
    assert point == Point(1)


def test_equality_and_hash() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(x=1, y=2))
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 2, ())
    assert len({Point(1), Point(1, 2), Point(3)}) == 2


def test_hash_does_not_depend_on_the_order_of_keywords() -> None:
    assert hash(Point(y=3, x=1)) == hash(Point(1, 3))


def test_replace() -> None:
    point = Point(1, 5)
    assert point.replace(x=4) == Point(4, 5)
    assert point == Point(1, 5)
    with pytest.raises(TypeError, match="z"):
        point.replace(z=1)


def test_representation() -> None:
    assert repr(Point(1, names=("a",))) == "Point(x=1, y=2, names=('a',))"


def test_copies_are_equal() -> None:
    assert copy.deepcopy(Point(1)) == copy.copy(Point(1)) == Point(1)
