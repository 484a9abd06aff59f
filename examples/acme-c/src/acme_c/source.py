"""The back end: it collects arrays and statements of C, and writes them to a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from layergraph import Ir
from layergraph.errors import ArgumentError
from layergraph.ir.values import leaves
from layergraph_backends import Backend, Step, lower


@dataclass(frozen=True)
class Array:
    """An array of floats in C: its name, and the shape of the tensor that it holds."""

    name: str
    shape: tuple[int, ...]


class Source(Backend):
    """The C source of one model."""

    target = "c"

    def __init__(self) -> None:
        self.arrays: list[str] = []
        self.statements: list[str] = []
        self.inputs: list[Array] = []
        self._weights: dict[str, Array] = {}

    def input(self, name: str, meta: Any) -> Array:
        """Declare a parameter of the function."""
        if meta.dtype != torch.float32 or not all(type(size) is int for size in meta.shape):
            raise ArgumentError(f"the input {name!r} is {meta}; pass a float32 tensor of one shape")
        self.inputs.append(Array(f"x{len(self.inputs)}", meta.shape))
        return self.inputs[-1]

    def tensor(self, key: str, tensor: torch.Tensor) -> Array:
        """Declare an array with the numbers of a tensor."""
        if key not in self._weights:
            array = Array(f"w{len(self.arrays)}", tuple(tensor.shape))
            # Write the numbers in base 16, which is exact.
            numbers = ", ".join(f"{number.hex()}f" for number in tensor.float().flatten().tolist())
            self.arrays.append(
                f"static const float {array.name}[{max(1, tensor.numel())}] = {{{numbers}}};"
                f" // {key!r}"
            )
            self._weights[key] = array
        return self._weights[key]

    def weight(self, step: Step, name: str) -> Array:
        """Declare an array with the numbers of a tensor of a layer."""
        return self.tensor(step.key(name), step.tensors[name])

    def emit(self, step: Step, statement: str) -> Array:
        """Append a statement. ``{out}`` stands for the array of the step's result."""
        out = Array(f"t{len(self.arrays)}", step.meta.shape)
        self.arrays.append(f"static float {out.name}[{prod(out.shape)}];")
        # A name may come from the file of a stranger. repr escapes line breaks, which would end
        # the comment.
        self.statements.append(f"// {step.where!r}: {step.kind!r}")
        self.statements.append(statement.replace("{out}", out.name))
        return out


def write(
    ir: Ir,
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    *,
    args: Sequence[Any],
) -> None:
    """Write a model as C source.

    Args:
        ir: the model.
        path: the file.
        state_dict: the weights.
        args: the arguments of a call: tensors, or their shapes.

    Raises:
        ArgumentError: there are no weights, or an input is not a float32 tensor of one shape.
        LoweringError: the target lacks layers. The function then writes no file.
    """
    if state_dict is None:
        raise ArgumentError("C source holds the weights: pass the state dict")
    source = Source()
    lowered = lower(ir, source, state_dict, args)
    outputs = [leaf for leaf in leaves(lowered.value) if isinstance(leaf, Array)]
    names = [f"out{number}" for number in range(len(outputs))]
    parameters = [f"const float *{each.name}" for each in source.inputs]
    parameters += [f"float *{name}" for name in names]
    copies = [
        f"for (long i = 0; i < {prod(array.shape)}; i++) {name}[i] = {array.name}[i];"
        for name, array in zip(names, outputs, strict=True)
    ]
    guards = [f"// The model holds for calls in which {guard!r}." for guard in lowered.guards]
    lines = ["#include <math.h>", *guards, *source.arrays, "", f"void net({', '.join(parameters)})"]
    lines += ["{", *(f"    {each}" for each in (*source.statements, *copies)), "}", ""]
    Path(path).write_text("\n".join(lines), encoding="utf-8")
