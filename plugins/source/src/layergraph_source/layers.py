"""Layers as calls of their constructors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from layergraph.errors import LayergraphError, Place
from layergraph.ir import Implementation
from layergraph.layers import Layer, signature_of
from layergraph.literals import NAMED
from layergraph.plugins import Hooks
from layergraph_source.context import Context
from layergraph_source.literals import UnspeakableError
from layergraph_source.templates import Argument, Hole, Template, holes, rendered


class LayerWriter:
    """Writes calls of constructors.

    Args:
        context: the names of the module.
        hooks: the handlers, whose rows name the arguments of constructors.
    """

    def __init__(self, context: Context, hooks: Hooks) -> None:
        self._context = context
        self._rows: dict[tuple[type, str], Layer] = {}
        for each in hooks.implementations:
            for row in each.table or () if each.hook == "ir_to_torch" else ():
                self._rows.setdefault((row.cls, row.type), row)
        self._defaults: dict[tuple[type, str, str], bool] = {}

    def template(
        self, implementation: Implementation, module: nn.Module, dtype: torch.dtype | None
    ) -> Template:
        """Return the call that makes a layer.

        Args:
            implementation: the layer.
            module: the layer, as its handler makes it.
            dtype: the dtype to ask the constructor for; None for its default.

        Raises:
            UnspeakableError: no row describes the layer, or an argument has no expression.
        """
        cls = type(module)
        row = self._row(implementation, module)
        given = row.arguments(implementation)
        owner = implementation.name.rpartition(".")[2]
        owner = "layer" if owner.isdigit() else owner
        pieces: list[str | Hole | Argument] = [f"{self.path(cls)}("]
        order = signature_of(cls).parameters
        is_leading = True
        for name, parameter in order.items():
            if name not in given:
                is_leading = False
                continue
            is_default = self._is_default(row, implementation, given, name)
            required = parameter.default is inspect.Parameter.empty
            is_leading = is_leading and required
            prefix = "" if is_leading else f"{name}="
            pieces.append(Argument(prefix, self._holes(name, owner, given[name]), is_default))
        # The constructor may take further keyword arguments.
        pieces += [
            Argument(f"{name}=", (Hole(name, owner, self._value(value)),))
            for name, value in given.items()
            if name not in order
        ]
        if dtype is not None:
            pieces.append(Argument("dtype=", (Hole("dtype", owner, self._value(dtype)),)))
        return (*pieces, ")")

    def _holes(self, name: str, owner: str, value: Any) -> Template:
        """Return an argument with holes; a tuple of sizes has one hole per size."""
        if type(value) is not tuple or {*map(type, value)} != {int}:
            return (Hole(name, owner, self._value(value)),)
        pieces: list[str | Hole | Argument] = []
        for at, each in enumerate(value):
            pieces += [", " if at else "(", Hole(name, owner, self._value(each))]
        return (*pieces, ",)" if len(value) == 1 else ")")

    def _row(self, implementation: Implementation, module: nn.Module) -> Layer:
        cls = type(module)
        key = cls, implementation.type
        row = self._rows.get(key)
        if row is not None:
            return row
        row = self._rows[key] = Layer(cls, type=implementation.type)
        try:
            row.check()
            data = row.read(module)
            fits = data is not None and data.keys() >= implementation.attributes.keys()
        except LayergraphError:
            fits = False
        if not fits:
            del self._rows[key]
            raise UnspeakableError(
                f"no row of the hook 'layers' says how {cls.__qualname__} is made"
            )
        return row

    def path(self, cls: type) -> str:
        """Return the expression of a class.

        Raises:
            UnspeakableError: code without layergraph cannot import it.
        """
        name = cls.__qualname__
        if getattr(nn, name, None) is cls:
            return f"{self._context.nn}.{name}"
        home = cls.__module__
        root, _, rest = home.partition(".")
        if root.startswith("layergraph") or root == "__main__" or not name.isidentifier():
            raise UnspeakableError(f"{home}.{name} cannot be imported without layergraph")
        if root == "torch":
            return f"{self._context.torch}.{rest}.{name}"
        return f"{self._context.library(home)}.{name}"

    def _is_default(
        self, row: Layer, implementation: Implementation, given: Mapping[str, Any], name: str
    ) -> bool:
        """Return whether the constructor makes the same layer without an argument."""
        default = signature_of(row.cls).parameters[name].default
        if default is inspect.Parameter.empty:
            return False
        if repr(given[name]) == repr(default):
            return True
        key = row.cls, name, repr(implementation.attributes)
        if key not in self._defaults:
            others = {each: value for each, value in given.items() if each != name}
            self._defaults[key] = _makes_the_same(row, given, others)
        return self._defaults[key]

    def _value(self, value: Any) -> str:
        return self._context.value(value, self._leaf)

    def _leaf(self, value: Any) -> str | None:
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, torch.Tensor):
            return self._context.tensor(value, Place("the IR"))
        if callable(value) and not isinstance(value, NAMED) and not isinstance(value, type):
            return self._function(value)
        return None

    def _function(self, function: Any) -> str:
        name = getattr(function, "__name__", "")
        if getattr(nn.functional, name, None) is function:
            return f"{self._context.functional}.{name}"
        if getattr(torch, name, None) is function:
            return f"{self._context.torch}.{name}"
        raise UnspeakableError(f"the function {name!r} is none of torch")

    def _module(self, module: nn.Module) -> str:
        cls = type(module)
        row = next((row for (known, _), row in self._rows.items() if known is cls), None)
        data = None if row is None else row.read(module)
        if row is None or data is None:
            raise UnspeakableError(f"an argument is a {cls.__qualname__}, which no row describes")
        template = self.template(Implementation(row.type, data, name="layer"), module, None)
        texts = [each.text for each in holes(template)]
        return rendered([template], lambda number: texts[number])[0]


def _makes_the_same(row: Layer, given: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    if any(isinstance(each, nn.Module) for each in given.values()):
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            one, two = (row.read(row.cls(**each)) for each in (given, others))
    except Exception:  # the constructor needs the argument
        return False
    return one is not None and repr(one) == repr(two)
