"""The inputs of a model, as values of a target."""

from __future__ import annotations

from typing import Any

import torch

from layergraph.errors import ArgumentError
from layergraph.ir import INPUT
from layergraph.ir.values import parts, rebuilt
from layergraph.ir2torch.meta_model import MetaModel
from layergraph_backends.backend import Backend
from layergraph_backends.plain import is_known
from layergraph_shapes import TensorMeta, shapes_of

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Inputs:
    """The inputs of a model, as values of a target.

    Args:
        built: the model of one mode, on the meta device.
        backend: makes the values.
        call: the arguments of a call; None if unknown.

    Attributes:
        metas: the description of each value in the model, by its path; empty without a call.
        output: the description of the model's result; None without a call.
        conditions: the conditions on named sizes under which the descriptions are valid.

    Raises:
        ArgumentError: the arguments are not those that the model takes.
    """

    def __init__(self, built: MetaModel, backend: Backend, call: Call | None) -> None:
        self._root = built.ir[built.ir.root]
        self._backend = backend
        self._call = call
        self.metas: dict[tuple[str, ...], Any] = {}
        self.output: Any = None
        self.conditions: tuple[str, ...] = ()
        if call is not None:
            shapes = shapes_of(built, *call)
            self.metas = dict(shapes)
            self.output, self.conditions = shapes.output, shapes.conditions

    def values(self) -> dict[str, Any]:
        """Return the value of each input node of the root."""
        names = self._root.parameters()
        found = {}
        for node in self._root.nodes.values():
            if node.type != INPUT:
                continue
            name = names[node.name]
            fixed = node.kwargs.get("fixed")
            # The description of a text does not tell it from that of a number without a value.
            if (self._call is None and "fixed" in node.kwargs) or type(fixed) is str:
                found[node.name] = fixed
            elif self._call is not None:
                found[node.name] = self._value(name, self.metas.get((node.name,)))
            else:
                found[node.name] = self._backend.input(name, None)
        return found

    def of_a_leaf(self) -> dict[str, Any]:
        """Return the values of the inputs of a model that is one layer."""
        if self._call is None:
            return {"input": self._backend.input("input", None)}
        args, kwargs = self._call
        if kwargs:
            raise ArgumentError("give the arguments of a model that is one layer by position")
        names = ["input", *(f"input_{number}" for number in range(1, len(args)))]
        self.metas |= {(name,): _described(arg) for name, arg in zip(names, args, strict=False)}
        self.metas[self._root.name,] = self.output
        return {name: self._value(name, self.metas[name,]) for name in names[: len(args)]}

    def _value(self, name: str, meta: Any) -> Any:
        """Return the value for an input; one for each tensor in a container."""
        if meta is None or is_known(meta):
            return meta
        inside = parts(meta)
        if inside is None:
            return self._backend.input(name, meta)
        keys = list(meta) if isinstance(meta, dict) else range(len(inside))
        each = [self._value(f"{name}_{key}", part) for key, part in zip(keys, inside, strict=True)]
        return rebuilt(meta, each)


def _described(arg: Any) -> Any:
    if isinstance(arg, torch.Tensor):
        return TensorMeta(tuple(arg.shape), arg.dtype)
    return TensorMeta(arg) if isinstance(arg, tuple) else arg
