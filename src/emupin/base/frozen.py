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
        fields, values = self._fields, self.__dict__
        wrong = [name for name in kwargs if name in values or name not in fields]
        values.update(kwargs)
        for name in fields:
            if name not in values:
                try:
                    values[name] = getattr(type(self), name)
                except AttributeError:
                    wrong.append(name)
        if wrong or len(args) > len(fields):
            raise TypeError(f"{type(self).__name__}: wrong or missing fields: {', '.join(wrong) or 'too many'}")
        ordered = {name: values[name] for name in fields}  # Whoever takes the values takes them in this order.
        values.clear()
        values.update(ordered)

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
        return type(self)(**{**self.__dict__, **changes})
