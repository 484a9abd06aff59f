"""The operators of ONNX that are layers or functions of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from layergraph_files.parse_errors import ParseError


class Operator:
    """A node of a foreign graph.

    Attributes:
        kind: the operator.
        place: the node, for errors.
        settings: its attributes.
        inputs: the values that it reads: nodes of torch.fx, tensors of the file, or None.
    """

    def __init__(
        self, kind: str, place: str, settings: dict[str, Any], inputs: Sequence[Any]
    ) -> None:
        self.kind = kind
        self.place = place
        self.settings = settings
        self.inputs = list(inputs)

    def refuse(self, reason: str) -> ParseError:
        """Return the error for a node that has no form in torch."""
        return ParseError(None, f"{self.place}: {reason}", "write the model in another form")

    def tensor(self, position: int) -> torch.Tensor | None:
        """Return an input that must be a tensor of the file; None if it is omitted."""
        if position >= len(self.inputs) or self.inputs[position] is None:
            return None
        found = self.inputs[position]
        if not isinstance(found, torch.Tensor):
            raise self.refuse(f"its input {position} is computed, and torch needs it in the file")
        return found

    def needed(self, position: int) -> torch.Tensor:
        """Return a required input that is a tensor of the file."""
        found = self.tensor(position)
        if found is None:
            raise self.refuse(f"its input {position} is missing")
        return found

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.settings.get(name, default)

    def padding(self, axes: int) -> list[int]:
        """Return the padding, which must be the same at both ends."""
        if self.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise self.refuse(f"its auto_pad is {self.get('auto_pad', '')}")
        pads = list(self.get("pads", [0] * (2 * axes)))
        if len(pads) != 2 * axes or pads[:axes] != pads[axes:]:
            raise self.refuse(f"its pads are {pads}, which differ at the two ends")
        return pads[:axes]


def _filled(layer: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    """Return a layer with tensors of the file as its weights."""
    for name, tensor in tensors.items():
        if tensor is not None:
            own = getattr(layer, name)
            value = nn.Parameter(tensor, False) if isinstance(own, nn.Parameter) else tensor
            setattr(layer, name, value.requires_grad_(isinstance(own, nn.Parameter)))
    return layer


def _conv(node: Operator) -> nn.Module:
    weight, bias = node.needed(1), node.tensor(2)
    axes, groups = weight.dim() - 2, node.get("group", 1)
    is_transposed = node.kind == "ConvTranspose"
    if axes not in (1, 2, 3):
        raise node.refuse(f"it has {axes} axes")
    name = f"ConvTranspose{axes}d" if is_transposed else f"Conv{axes}d"
    channels = (weight.shape[0], weight.shape[1] * groups)
    more: dict[str, Any] = {}
    if is_transposed:
        if "output_shape" in node.settings:
            raise node.refuse("it has an output_shape")
        more["output_padding"] = tuple(node.get("output_padding", [0] * axes))
    settings: dict[str, Any] = {
        "stride": tuple(node.get("strides", [1] * axes)),
        "padding": tuple(node.padding(axes)),
        "dilation": tuple(node.get("dilations", [1] * axes)),
        "groups": groups, "bias": bias is not None, "device": "meta", **more,
    }  # fmt: skip
    into, out = channels if is_transposed else channels[::-1]
    layer = getattr(nn, name)(into, out, tuple(weight.shape[2:]), **settings)
    return _filled(layer, weight=weight, bias=bias)


def _gemm(node: Operator) -> nn.Module:
    weight, bias = node.needed(1), node.tensor(2)
    factors = node.get("alpha", 1.0), node.get("beta", 1.0), node.get("transA", 0)
    if factors != (1.0, 1.0, 0) or weight.dim() != 2 or (bias is not None and bias.dim() != 1):
        raise node.refuse("it is no linear layer")
    return linear(weight if node.get("transB", 0) else weight.T.contiguous(), bias)


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Return a linear layer with these tensors."""
    out, into = weight.shape
    return _filled(
        nn.Linear(into, out, bias=bias is not None, device="meta"), weight=weight, bias=bias
    )


def _batchnorm(node: Operator) -> nn.Module:
    if node.get("training_mode", 0):
        raise node.refuse("it computes statistics")
    weight, bias, mean, variance = (node.needed(at) for at in (1, 2, 3, 4))
    # The file does not say how many axes the input has; this class takes any of 4.
    layer = nn.BatchNorm2d(len(weight), eps=node.get("epsilon", 1e-5))
    return _filled(layer, weight=weight, bias=bias, running_mean=mean, running_var=variance)


def _layernorm(node: Operator) -> nn.Module:
    weight, bias = node.needed(1), node.tensor(2)
    axis = node.get("axis", -1)
    if axis != -weight.dim():
        raise node.refuse(f"its axis is {axis}, and its weight has {weight.dim()} axes")
    layer = nn.LayerNorm(
        list(weight.shape), eps=node.get("epsilon", 1e-5), bias=bias is not None, device="meta"
    )
    return _filled(layer, weight=weight, bias=bias)


def _pool(node: Operator) -> nn.Module:
    kernel = node.get("kernel_shape", [])
    axes = len(kernel)
    if axes not in (1, 2, 3) or node.get("storage_order", 0):
        raise node.refuse("it has no form in torch")
    settings: dict[str, Any] = {
        "kernel_size": tuple(kernel), "stride": tuple(node.get("strides", [1] * axes)),
        "padding": tuple(node.padding(axes)), "ceil_mode": bool(node.get("ceil_mode", 0)),
    }  # fmt: skip
    dilations = tuple(node.get("dilations", [1] * axes))
    if node.kind == "MaxPool":
        made: nn.Module = getattr(nn, f"MaxPool{axes}d")(dilation=dilations, **settings)
        return made
    if set(dilations) != {1} or settings["ceil_mode"]:
        raise node.refuse("it has dilations or ceil_mode")
    include = bool(node.get("count_include_pad", 0))
    average: nn.Module = getattr(nn, f"AvgPool{axes}d")(count_include_pad=include, **settings)
    return average


def _embedding(node: Operator) -> nn.Module:
    weight = node.inputs[0]
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or node.get("axis", 0) != 0:
        raise node.refuse("it is no embedding")
    return _filled(nn.Embedding(weight.shape[0], weight.shape[1], device="meta"), weight=weight)


def _softmax(node: Operator) -> nn.Module:
    kinds = {"Softmax": nn.Softmax, "LogSoftmax": nn.LogSoftmax}
    return kinds[node.kind](dim=node.get("axis", -1))


def _clip(node: Operator) -> nn.Module:
    low, high = (float(node.needed(at)) for at in (1, 2))
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _flatten(node: Operator) -> nn.Module:
    if node.get("axis", 1) != 1:
        raise node.refuse("its axis is not 1")
    return nn.Flatten()


LAYERS: dict[str, Callable[[Operator], nn.Module]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _layernorm,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": lambda _: nn.AdaptiveAvgPool2d(1),
    "Gather": _embedding,
    "Relu": lambda _: nn.ReLU(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Tanh": lambda _: nn.Tanh(),
    "Softplus": lambda _: nn.Softplus(),
    "Mish": lambda _: nn.Mish(),
    "HardSwish": lambda _: nn.Hardswish(),
    "Gelu": lambda node: nn.GELU(node.get("approximate", "none")),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.get("alpha", 0.01)),
    "Elu": lambda node: nn.ELU(node.get("alpha", 1.0)),
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Clip": _clip,
    "Flatten": _flatten,
    "Dropout": lambda _: nn.Dropout(),
}
"""Layers by operator. Such a layer reads one computed value."""

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "MatMul": torch.matmul,
}

_OTHERS = ("Concat", "Identity", "Pad", "ReduceMean", "Reshape", "Transpose")

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def function_call(node: Operator) -> Call:
    """Return the function of torch for an operator that is no layer, and its arguments.

    Raises:
        ParseError: torch has no such function.
    """
    if node.kind in _BINARY:
        return _BINARY[node.kind], tuple(node.inputs[:2]), {}
    if node.kind == "Concat":
        return torch.cat, (tuple(node.inputs),), {"dim": node.get("axis", 0)}
    if node.kind == "Reshape":
        shape = node.needed(1).tolist()
        if 0 in shape:
            raise node.refuse("its shape has a 0, which keeps a size")
        return torch.reshape, (node.inputs[0], tuple(shape)), {}
    if node.kind == "Transpose" and "perm" in node.settings:
        return torch.permute, (node.inputs[0], tuple(node.settings["perm"])), {}
    if node.kind == "ReduceMean":
        axes = node.tensor(1)
        dims = node.get("axes", None) if axes is None else axes.tolist()
        return torch.mean, (node.inputs[0], dims), {"keepdim": bool(node.get("keepdims", 1))}
    if node.kind == "Pad" and node.get("mode", "constant") == "constant":
        pads = node.needed(1).tolist()
        half = len(pads) // 2
        ends = [each for at in reversed(range(half)) for each in (pads[at], pads[half + at])]
        value = node.tensor(2)
        return (
            nn.functional.pad,
            (node.inputs[0], ends),
            {"value": 0.0 if value is None else float(value)},
        )
    raise ParseError(
        None, f"{node.place} is none of the operators that are layers",
        f"those are {', '.join([*sorted([*LAYERS, *_BINARY]), *_OTHERS])}",
    )  # fmt: skip
