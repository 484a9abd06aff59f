"""Results of models that are objects with fields, such as dataclasses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from torch.utils._pytree import MappingKey, register_pytree_node

_Class = TypeVar("_Class", bound=type)
_METHODS = frozenset({*vars(dict), "to_tuple"})


def _registered(cls: _Class) -> _Class:
    """Register a class of outputs with torch's pytree, for transforms, compilers and exporters."""

    def take_apart(output: Any) -> tuple[list[Any], Any]:
        # Torch writes the context as JSON, which has lists only.
        context = [output._name, [*output._absent], [*output]]
        return list(dict.values(output)), context

    def put_together(values: Iterable[Any], context: Any) -> Any:
        name, absent, keys = context
        return cls(zip(keys, values, strict=True), name, tuple(absent))

    def with_keys(output: Any) -> tuple[list[Any], Any]:
        values, context = take_apart(output)
        return [(MappingKey(key), each) for key, each in zip(output, values, strict=True)], context

    register_pytree_node(
        cls,
        take_apart,
        put_together,
        serialized_type_name=f"{cls.__module__}.Output",
        flatten_with_keys_fn=with_keys,
    )
    return cls


@_registered
class Output(dict[str, Any]):
    """The result of a rebuilt model whose original returns an object with fields.

    Read the fields as attributes, by key, or by number: ``out.logits``, ``out["logits"]``,
    ``out[0]``. A field that is None is not among the keys, as in the outputs of transformers.

    Args:
        fields: the fields that are not None, in order.
        name: the name of the class of the original's result.
        absent: the names of the fields that are None.
    """

    def __init__(
        self, fields: Any = (), name: str = "Output", absent: tuple[str, ...] = ()
    ) -> None:
        super().__init__(fields)
        self.__dict__.update(_name=name, _absent=absent)
        for each in (*dict.keys(self), *absent):
            if each in _METHODS:  # such as a field "values"
                self.__dict__[each] = dict.get(self, each)

    def __getattr__(self, name: str) -> Any:
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        if name in self.__dict__.get("_absent", ()):
            return None
        raise AttributeError(f"the output {self._name!r} has no field {name!r}")

    def __missing__(self, key: Any) -> None:
        if key not in self._absent:
            raise KeyError(key)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        dict.__setitem__(self, key, value)
        if key in _METHODS:
            self.__dict__[key] = value

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, int | slice) else dict.__getitem__(self, key)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self, *self._absent]

    def copy(self) -> Output:
        """Return an output with the same fields."""
        return Output(*self.__reduce__()[1])

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(dict.values(self))

    def __repr__(self) -> str:
        # torch.fx writes the repr of constants into code: this one is a syntax error there.
        fields = ", ".join([f"{name}={value!r}" for name, value in dict.items(self)])
        return f"<{self._name}({fields})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Output, (dict(dict.items(self)), self._name, self._absent)


def class_name(value: object) -> str:
    """Return the name of the class of a value; for an output, of the class that it stands for."""
    return value._name if isinstance(value, Output) else type(value).__name__


def make_output(name: str, fields: tuple[str, ...], /, *values: Any) -> Output:
    """Return an output.

    Args:
        name: the name of the class of the original's result.
        fields: the names of its fields.
        values: the value of each field.
    """
    given = dict(zip(fields, values, strict=True))
    found = {field: value for field, value in given.items() if value is not None}
    return Output(found, name, tuple([field for field in fields if field not in found]))
