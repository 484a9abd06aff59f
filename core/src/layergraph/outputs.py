"""Results of models that are objects with fields, such as dataclasses."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from torch.utils._pytree import MappingKey, register_pytree_node

from layergraph.torch_versions import note_structure

_METHODS = frozenset({*vars(dict), "to_tuple", "_name", "_field_names", "_aliases", "_nested"})
ATTRIBUTE = "."
"""The beginning of the names of what a record says of the class of an output, and not of a field.

``".name": "field"`` says that the attribute ``name`` is another name of a field;
``".to_tuple": ["field"]`` says that ``to_tuple()`` gives these fields as tuples too, and
``".to_tuple": None`` that it gives something else than the fields.
"""
TO_TUPLE = ATTRIBUTE + "to_tuple"


class OutputClass(type):
    """The type of the classes of outputs, by which they are pickled."""


class Output(dict[str, Any], metaclass=OutputClass):
    """The result of a rebuilt model whose original returns an object with fields.

    Read the fields as attributes, by key, or by number: ``out.logits``, ``out["logits"]``,
    ``out[0]``. A field that is None is not among the keys, as in the outputs of transformers.
    Each class of the original has a class here: see :func:`output_class`.

    Args:
        given: the fields, as for a dict. Those that are None are left out.
        fields: more fields.
    """

    _name: ClassVar[str] = "Output"
    _field_names: ClassVar[tuple[str, ...]] = ()
    _aliases: ClassVar[Mapping[str, str]] = {}
    # The fields that to_tuple() gives as tuples; None if it gives something else.
    _nested: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, given: Any = (), /, **fields: Any) -> None:
        found = dict(given, **fields)
        super().__init__({name: value for name, value in found.items() if value is not None})
        for each in {*found, *type(self)._field_names}:
            if each in _METHODS:  # such as a field "values"
                self.__dict__[each] = dict.get(self, each)

    def __getattr__(self, name: str) -> Any:
        name = type(self)._aliases.get(name, name)
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        if name in type(self)._field_names:
            return None
        raise AttributeError(
            f"the output {type(self)._name!r} has no field {name!r}; what its class computes from "
            "the fields is not part of a graph"
        )

    def __missing__(self, key: Any) -> Any:
        if key in type(self)._aliases:
            return getattr(self, key)
        if key not in type(self)._field_names:
            raise KeyError(key)
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        key = type(self)._aliases.get(key, key)
        if value is None and key in type(self)._field_names:
            dict.pop(self, key, None)
        else:
            dict.__setitem__(self, key, value)
        if key in _METHODS:
            self.__dict__[key] = value

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, int | slice) else dict.__getitem__(self, key)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self, *type(self)._field_names, *type(self)._aliases]

    def copy(self) -> Self:
        """Return an output with the same fields."""
        return type(self)(dict(dict.items(self)))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order.

        Raises:
            TypeError: the class of the original computes something else.
        """
        nested = type(self)._nested
        if nested is None:
            raise TypeError(
                f"the class {type(self)._name!r} of the original computes its own to_tuple(), "
                "which is not part of a graph; read the fields by name"
            )
        return tuple(
            [
                value.to_tuple() if name in nested and isinstance(value, Output) else value
                for name, value in dict.items(self)
            ]
        )

    def __repr__(self) -> str:
        # torch.fx writes the repr of constants into code: this one is a syntax error there.
        fields = ", ".join([f"{name}={value!r}" for name, value in dict.items(self)])
        return f"<{type(self)._name}({fields})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (*_arguments(type(self)), dict(dict.items(self)))


@functools.cache
def output_class(name: str, *said: tuple[str, Any]) -> type[Output]:
    """Return the class of the outputs that stand for the objects of a class.

    Args:
        name: the name of the class of the original's result.
        said: the names of its fields, each with None; then what else is known of the class: see
            :data:`ATTRIBUTE`.

    Example:
        >>> from layergraph.outputs import output_class
        >>> Result = output_class("Result", ("logits", None), ("loss", None))
        >>> Result(logits=1).loss is None
        True
    """
    more = {each: value for each, value in said if each.startswith(ATTRIBUTE)}
    nested = more.pop(TO_TUPLE, ())
    cls: Any = OutputClass(
        "Output",
        (Output,),
        {
            "__module__": __name__,
            "_name": name,
            "_field_names": tuple([each for each, _ in said if not each.startswith(ATTRIBUTE)]),
            "_aliases": {each.removeprefix(ATTRIBUTE): value for each, value in more.items()},
            "_nested": nested,
        },
    )
    _register(cls)
    made: type[Output] = cls
    return made


def class_facts(cls: type[Output]) -> dict[str, Any]:
    """Return what a record says of a class of outputs besides its fields."""
    facts: dict[str, Any] = {ATTRIBUTE + name: field for name, field in cls._aliases.items()}
    if cls._nested != ():
        facts[TO_TUPLE] = cls._nested
    return facts


def reduce_class(cls: type[Output]) -> Any:
    """Return how a class is pickled: see :func:`copyreg.pickle`."""
    return "Output" if cls is Output else (output_class, _arguments(cls))


def _arguments(cls: type[Output]) -> tuple[Any, ...]:
    """Return the arguments with which :func:`output_class` makes a class."""
    fields = [(each, None) for each in cls._field_names]
    return cls._name, *fields, *class_facts(cls).items()


def _made(name: str, *rest: Any) -> Output:
    *said, fields = rest
    return output_class(name, *said)(fields)


def _register(cls: type[Output]) -> None:
    """Tell torch's transforms, compilers and exporters of a class of outputs."""

    def take_apart(output: Any) -> tuple[list[Any], Any]:
        # Torch writes the context as JSON, which has lists only.
        name, *said = _arguments(type(output))
        return list(dict.values(output)), [name, [[*each] for each in said], [*output]]

    def put_together(values: Iterable[Any], context: Any) -> Any:
        name, said, keys = context
        known = [(key, tuple(value) if isinstance(value, list) else value) for key, value in said]
        return output_class(name, *known)(zip(keys, values, strict=True))

    def with_keys(output: Any) -> tuple[list[Any], Any]:
        values, context = take_apart(output)
        return [(MappingKey(key), each) for key, each in zip(output, values, strict=True)], context

    # The context says the class: one name serves all of them, also in a new process.
    register_pytree_node(
        cls,
        take_apart,
        put_together,
        serialized_type_name=f"{__name__}.Output",
        flatten_with_keys_fn=with_keys,
    )
    note_structure(cls, take_apart)


_register(Output)


def class_name(value: object) -> str:
    """Return the name of the class of a value; for an output, of the class that it stands for."""
    return value._name if isinstance(value, Output) else type(value).__name__
