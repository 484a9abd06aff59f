"""A step of a model, the argument of handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError
from layergraph.functions.names import Targets
from layergraph.ir import Implementation, Node
from layergraph.plugins.hooks import function_homes
from layergraph_backends.plain import of_torch


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a layer or function, with values of the target as its arguments.

    Attributes:
        path: the names of the nodes that make the call, from the root on: ``("encoder", "fc")``.
        graph: the name of the implementation whose graph has the node.
        node: the node.
        layer: the implementation that it calls; None for a function.
        module: the module of the layer, built and in the mode of the lowering; None for a function.
        args: the positional arguments: nested values, with a value of the target for each reference
            to a node.
        kwargs: the keyword arguments.
        meta: the shape and dtype of the result, a :class:`layergraph_shapes.TensorMeta` or nested
            ones; None if unknown.
        arg_metas: the positional arguments, with shapes and dtypes instead of values.
        kwarg_metas: the keyword arguments, with shapes and dtypes instead of values.
        run: ``run(body, *args)`` walks through the graph of a :class:`layergraph.ir.Body` among the
            arguments, and returns its result.
        prefix: the prefix of the layer's tensor names in the state dict.
    """

    path: tuple[str, ...]
    graph: str
    node: Node
    layer: Implementation | None
    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: Any = None
    arg_metas: tuple[Any, ...] = ()
    kwarg_metas: dict[str, Any] = field(default_factory=dict)
    run: Callable[..., Any] | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """The name of the node."""
        return self.node.name

    @property
    def kind(self) -> str:
        """The type of the layer, or the name of the function."""
        return self.node.implementation if self.layer is None else self.layer.type

    @property
    def where(self) -> str:
        """The place of the node in the IR."""
        return f"{self.graph}:{self.node.name}"

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the layer, without annotations; empty for a function."""
        return {} if self.layer is None else self.layer.attributes

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The detached parameters and buffers of the layer by name."""
        if self.module is None:
            return {}
        named: Iterable[tuple[str, torch.Tensor]] = (
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        )
        return {name: tensor.detach() for name, tensor in named}

    def key(self, name: str) -> str:
        """Return the key of one of the layer's tensors in the state dict of the model."""
        return f"{self.prefix}{name}"

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the layer or function for tensors.

        Args:
            args: the arguments by position: tensors, or nested ones, and plain values.
            kwargs: the arguments by name.

        Raises:
            BuildError: no installed package lists the function.
        """
        args, kwargs = of_torch((args, kwargs))
        if self.module is not None:
            # A layer may change its buffers, which are those of the caller.
            buffers = {name: each.clone() for name, each in self.module.named_buffers()}
            return torch.func.functional_call(self.module, buffers, args, kwargs)
        target = Targets(()).target(self.kind) or Targets(function_homes()).target(self.kind)
        if target is None:
            raise BuildError(f"no installed package lists the function {self.kind!r}")
        if callable(target.target):
            return target.target(*args, **kwargs)
        value = getattr(args[0], target.target)
        return value if target.op == "attribute" else value(*args[1:], **kwargs)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that the model passes by position or by name.

        Args:
            position: its place among the arguments.
            name: its name.
            default: its default.
        """
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)
