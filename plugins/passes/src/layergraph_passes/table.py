"""The functions of torch that are equivalent to layers without tensors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from layergraph.ir import Node, Ref, Value, refs

F = "torch.nn.functional."
METHOD = "torch.Tensor."


class Row(NamedTuple):
    """Functions of one signature, and the type of the layer that computes the same.

    Attributes:
        type: the type of the layer.
        functions: the full names of the functions. That of an in-place variant ends in ``_``.
        parameters: the parameters after the first one, which is the input. They are named as the
            attributes of the layer.
        differing: the defaults of the function and of the layer, if they differ.
        needs: parameters that must be given and not None.
    """

    type: str
    functions: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    differing: Mapping[str, tuple[Value, Value]] = MappingProxyType({})
    needs: tuple[str, ...] = ()


_NOT_ATTRIBUTES = ("dtype", "antialias")  # only the default has a layer
_IGNORED = ("_stacklevel",)
MODE = "training"


def _rows() -> list[Row]:
    def names(text: str) -> tuple[str, ...]:
        return tuple(text.replace("F.", F).replace("Tensor.", METHOD).split())

    def row(kind: str, functions: str, parameters: str = "", **more: Value) -> Row:
        return Row(kind, names(functions), tuple(parameters.split()), **more)

    pools = [
        row(f"maxpool{n}d", f"F.max_pool{n}d F._max_pool{n}d torch.max_pool{n}d",
            "kernel_size stride padding dilation ceil_mode return_indices")
        for n in (1, 2, 3)
    ]  # fmt: skip
    pools += [
        row(f"adaptiveavgpool{n}d", f"F.adaptive_avg_pool{n}d", "output_size") for n in (1, 2, 3)
    ]
    pools += [
        row(f"adaptivemaxpool{n}d", f"F.adaptive_max_pool{n}d", "output_size return_indices")
        for n in (1, 2, 3)
    ]
    average = "kernel_size stride padding ceil_mode count_include_pad"
    pools += [row("avgpool1d", "F.avg_pool1d torch.avg_pool1d", average)]
    pools += [row(f"avgpool{n}d", f"F.avg_pool{n}d", f"{average} divisor_override") for n in (2, 3)]
    drops = {"dropout": "dropout", "alpha_dropout": "alphadropout",
             "dropout1d": "dropout1d", "dropout2d": "dropout2d", "dropout3d": "dropout3d",
             "feature_alpha_dropout": "featurealphadropout"}  # fmt: skip
    return [
        row("relu", "F.relu F.relu_", "inplace"),
        row("relu", "torch.relu torch.relu_ Tensor.relu Tensor.relu_"),
        row("sigmoid", "torch.sigmoid F.sigmoid Tensor.sigmoid torch.special.expit"),
        row("tanh", "torch.tanh F.tanh Tensor.tanh"),
        row("gelu", "F.gelu", "approximate"),
        row("silu", "F.silu", "inplace"),
        row("mish", "F.mish", "inplace"),
        row("relu6", "F.relu6", "inplace"),
        row("hardswish", "F.hardswish", "inplace"),
        row("hardsigmoid", "F.hardsigmoid", "inplace"),
        row("selu", "F.selu", "inplace"),
        row("elu", "F.elu F.elu_", "alpha inplace"),
        row("celu", "F.celu", "alpha inplace"),
        row("leakyrelu", "F.leaky_relu F.leaky_relu_", "negative_slope inplace"),
        row("hardtanh", "F.hardtanh F.hardtanh_", "min_val max_val inplace"),
        row("threshold", "F.threshold F.threshold_", "threshold value inplace"),
        row("softplus", "F.softplus", "beta threshold"),
        row("softshrink", "F.softshrink", "lambd"),
        row("hardshrink", "F.hardshrink", "lambd"),
        row("tanhshrink", "F.tanhshrink"),
        row("softsign", "F.softsign"),
        row("logsigmoid", "F.logsigmoid"),
        row("glu", "F.glu", "dim"),
        row("softmax", "F.softmax", "dim _stacklevel dtype", needs=("dim",)),
        row("softmax", "torch.softmax Tensor.softmax", "dim dtype", needs=("dim",)),
        row("logsoftmax", "F.log_softmax", "dim _stacklevel dtype", needs=("dim",)),
        row("logsoftmax", "torch.log_softmax Tensor.log_softmax", "dim dtype", needs=("dim",)),
        row("softmin", "F.softmin", "dim _stacklevel dtype", needs=("dim",)),
        row("flatten", "torch.flatten Tensor.flatten", "start_dim end_dim",
            differing={"start_dim": (0, 1)}),
        row("pixelshuffle", "F.pixel_shuffle torch.pixel_shuffle", "upscale_factor"),
        row("pixelunshuffle", "F.pixel_unshuffle torch.pixel_unshuffle", "downscale_factor"),
        row("upsample", "F.interpolate",
            "size scale_factor mode align_corners recompute_scale_factor antialias"),
        *pools,
        *(row(kind, f"F.{name}", f"p {MODE} inplace") for name, kind in drops.items()),
    ]  # fmt: skip


ROWS = _rows()
BY_FUNCTION = {name: row for row in ROWS for name in row.functions}
BY_TYPE = {row.type: row for row in reversed(ROWS)}


class NoLayerError(Exception):
    """No layer is equivalent to a call. The message is the reason."""


def attributes_of(node: Node) -> tuple[str, dict[str, Value], Value]:
    """Return the type and attributes of the layer that is equivalent to a node.

    Returns:
        The type; the attributes; and the argument for the mode, None without one.

    Raises:
        NoLayerError: there is none.
    """
    row = BY_FUNCTION[node.implementation]
    given = _given(row, node)
    mode = given.pop(MODE, True) if MODE in row.parameters else None
    if refs(*given.values()):
        raise NoLayerError("an argument is the value of a node")
    for name in _IGNORED:
        given.pop(name, None)
    for name in _NOT_ATTRIBUTES:
        if given.pop(name, None):
            raise NoLayerError(f"the layer has no {name!r}")
    for name in row.needs:
        if given.get(name) is None:
            raise NoLayerError(f"{name!r} is not given")
    for name, (default, _) in row.differing.items():
        given.setdefault(name, default)
    if node.implementation.endswith("_"):
        given["inplace"] = True
    return row.type, given, mode


def _given(row: Row, node: Node) -> dict[str, Value]:
    """Return the arguments of a node after its input, by name."""
    args = node.args or ()
    if not args or type(args[0]) is not Ref:
        raise NoLayerError("its input is no value of a node")
    if len(args) > 1 + len(row.parameters) or node.kwargs.keys() - {*row.parameters}:
        raise NoLayerError("it has an argument that the layer does not have")
    return {**dict(zip(row.parameters, args[1:], strict=False)), **node.kwargs}


def call_of(kind: str, attributes: Mapping[str, Value]) -> tuple[str, dict[str, Value]] | None:
    """Return the function, and its arguments, that computes what a layer computes; None if none."""
    row = BY_TYPE.get(kind)
    if row is None or MODE in row.parameters or attributes.keys() - {*row.parameters}:
        return None
    given = dict(attributes)
    for name, (_, default) in row.differing.items():
        given.setdefault(name, default)
    return row.functions[0], given
