"""Immutable values, without what `dataclasses` costs at start-up (it more than doubles the hook's time)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_kwargs):
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Frozen:
    """A value: its fields are the annotations of its class, in order; a class attribute is a field's default."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = self._fields
        self.__dict__.update(zip(fields, args))
        if kwargs or len(args) != len(fields):
            self._complete(args, kwargs)

    def _complete(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the keyword fields and the defaults; raise TypeError for a missing, repeated or unknown field."""
        values, missing = self.__dict__, []
        for name in self._fields[len(args) :]:  # Whoever takes the values takes them in this order.
            if name in kwargs:
                values[name] = kwargs.pop(name)
            elif hasattr(type(self), name):
                values[name] = getattr(type(self), name)
            else:
                missing.append(name)
        if kwargs or missing or len(args) > len(self._fields):
            wrong = ", ".join([*kwargs, *missing]) or "too many"
            raise TypeError(f"{type(self).__name__}: wrong or missing fields: {wrong}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._fields))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in self._fields)})"

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed."""
        if unknown := changes.keys() - self._fields:
            raise TypeError(f"{type(self).__name__}: unknown fields: {', '.join(unknown)}")
        new = object.__new__(type(self))
        new.__dict__.update({name: self.__dict__[name] for name in self._fields}, **changes)
        return new
