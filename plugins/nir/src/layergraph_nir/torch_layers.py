"""Handlers for layers of torch.nn, functions of torch and the modules of this package."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.hook_types.lowerings import Lowering
from layergraph_nir.graph import NeuronState, Shape, Signal, StoredTensor, UnsupportedError
from layergraph_nir.modules import PRIMITIVES
from layergraph_nir.writing import METADATA, NirBackend

if TYPE_CHECKING:
    from layergraph_backends import Step

NIR_CLASSES = {kind: getattr(nir, cls.__name__) for kind, cls in PRIMITIVES.items()}


def array(tensor: torch.Tensor) -> Any:
    """Return a tensor as an array of numpy.

    Raises:
        UnsupportedError: numpy lacks the dtype.
    """
    try:
        return tensor.detach().cpu().contiguous().numpy().copy()
    except (TypeError, RuntimeError):
        raise UnsupportedError(
            f"it holds numbers of {tensor.dtype}, which numpy lacks; cast the model to float32"
        ) from None


def broadcast(tensor: torch.Tensor, shape: Shape) -> Any:
    """Return a tensor as an array of numpy, broadcast to the shape of a signal."""
    try:
        return array(tensor.broadcast_to(shape))
    except RuntimeError:
        raise UnsupportedError(
            f"it holds a tensor of the shape {tuple(tensor.shape)} for a signal of the shape "
            f"{shape} besides the batch"
        ) from None


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Return an Affine, or a Linear if there is no bias."""
    if bias is None:
        return nir.Linear(weight=array(weight))
    return nir.Affine(weight=array(weight), bias=array(bias))


def convolution(module: Any, shape: Shape) -> Any:
    """Return a Conv1d or Conv2d for an input of this shape, without the batch."""
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"its padding_mode is {module.padding_mode!r}; NIR pads with zeros")
    dims = module.weight.dim() - 2
    if len(shape) != dims + 1:
        raise UnsupportedError(f"its input has the shape {shape} besides the batch; give a batch")
    make = nir.Conv1d if dims == 1 else nir.Conv2d
    bias = module.bias
    node = make(
        input_shape=None,
        weight=array(module.weight),
        stride=_sizes(module.stride, dims),
        padding=module.padding if isinstance(module.padding, str) else _sizes(module.padding, dims),
        dilation=_sizes(module.dilation, dims),
        groups=module.groups,
        bias=np.zeros(len(module.weight), array(module.weight).dtype)
        if bias is None
        else array(bias),
    )
    node.input_shape = shape[1] if dims == 1 else shape[1:]
    if bias is None:
        node.metadata = {METADATA: "no bias"}
    return node


def _sizes(value: Any, dims: int) -> Any:
    sizes = (value,) * dims if isinstance(value, int) else tuple(value)
    return sizes[0] if dims == 1 else sizes


def lower_linear(step: Step, backend: NirBackend) -> Any:
    """Convert a linear layer to Affine or Linear."""
    signal = backend.signal(step)
    if len(signal.shape) != 1:
        raise UnsupportedError(
            f"its input has the shape {signal.shape} besides the batch, and NIR's Affine and "
            "Linear take vectors; flatten it first"
        )
    return backend.add(step, linear(step.tensors["weight"], step.tensors.get("bias")), signal)


def lower_convolution(step: Step, backend: NirBackend) -> Any:
    """Convert a convolution to Conv1d or Conv2d."""
    signal = backend.signal(step)
    return backend.add(step, convolution(step.module, signal.shape), signal)


def lower_avgpool2d(step: Step, backend: NirBackend) -> Any:
    """Convert an average pooling to AvgPool2d, or to SumPool2d if its divisor is 1."""
    module: Any = step.module
    padding = _sizes(module.padding, 2)
    if module.ceil_mode:
        raise UnsupportedError("its ceil_mode is True; NIR rounds sizes down")
    if any(padding) and not module.count_include_pad and module.divisor_override is None:
        raise UnsupportedError("its count_include_pad is False; NIR counts the padding")
    if module.divisor_override not in (None, 1):
        raise UnsupportedError(
            f"its divisor_override is {module.divisor_override}; NIR divides by the size of the "
            "kernel (AvgPool2d) or by 1 (SumPool2d)"
        )
    make = nir.AvgPool2d if module.divisor_override is None else nir.SumPool2d
    kernel = _sizes(module.kernel_size, 2)
    node = make(
        kernel_size=np.array(kernel),
        stride=np.array(_sizes(module.stride, 2)),
        padding=np.array(padding),
    )
    return backend.add(step, node, backend.signal(step))


def lower_flatten(step: Step, backend: NirBackend) -> Any:
    """Convert a flatten to Flatten, which does not count the batch as a dimension."""
    signal = backend.signal(step)
    given = [step.argument(1, "start_dim", 0), step.argument(2, "end_dim", -1)]
    if step.layer is not None:
        module: Any = step.module
        given = [module.start_dim, module.end_dim]
    dims = len(signal.shape) + 1
    if given[0] in (0, -dims):
        raise UnsupportedError("it flattens the batch too; let it start at dimension 1")
    # NIR does not count the batch. A negative dimension counts from the end.
    start, end = (each - 1 if each > 0 else each for each in given)
    node = nir.Flatten(input_type=np.array(signal.shape), start_dim=start, end_dim=end)
    return backend.add(step, node, signal)


def lower_reshape(step: Step, backend: NirBackend) -> Any:
    """Convert a reshape to Flatten, if it flattens all dimensions but the batch."""
    signal = backend.signal(step)
    sizes = getattr(step.meta, "shape", None)
    if sizes is None or tuple(sizes[1:]) != (math.prod(signal.shape),):
        raise UnsupportedError(
            f"its result has the shape {sizes}; NIR can only flatten all dimensions but the batch"
        )
    node = nir.Flatten(input_type=np.array(signal.shape), start_dim=0, end_dim=-1)
    return backend.add(step, node, signal)


def lower_identity(step: Step, backend: NirBackend) -> Any:
    """Skip a layer that returns its input in evaluation mode."""
    return backend.signal(step)


def lower_add(step: Step, backend: NirBackend) -> Any:
    """Convert a sum to edges into one node, which adds their values."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    if not isinstance(one, Signal) or not isinstance(other, Signal):
        raise UnsupportedError(
            "it adds a value that does not depend on an input of the model; NIR has no constants"
        )
    if one.shape != other.shape:
        raise UnsupportedError(f"it adds signals of the shapes {one.shape} and {other.shape}")
    if step.kwargs.get("alpha", 1) != 1:
        raise UnsupportedError("its alpha is not 1")
    return backend.graph.added(one, other)


def lower_mul(step: Step, backend: NirBackend) -> Any:
    """Convert a product with a number or a parameter to Scale."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    signal, factor = (other, one) if isinstance(other, Signal) else (one, other)
    if isinstance(factor, StoredTensor):
        numbers = factor.tensor
    elif isinstance(factor, bool | int | float):
        numbers = torch.tensor(float(factor))
    else:
        raise UnsupportedError("it multiplies two signals; NIR scales by numbers")
    if not isinstance(signal, Signal):
        raise UnsupportedError("it multiplies values that do not depend on an input of the model")
    if numbers.dim() > len(signal.shape):
        numbers = numbers.squeeze(0)
    return backend.add(step, nir.Scale(scale=broadcast(numbers, signal.shape)), signal)


def lower_primitive(step: Step, backend: NirBackend) -> Any:
    """Convert a module of this package to its primitive."""
    module: Any = step.module
    if "dt" in step.attributes and module.dt != backend.dt:
        raise UnsupportedError(
            f"its dt is {module.dt}, and that of the graph {backend.dt}; pass dt"
        )
    signal = backend.signal(step, 0, "x")
    take_states(step, backend, 1)
    tensors = {
        name: broadcast(each, signal.shape)
        for name, each in step.tensors.items()
        if name in module.parameters_of
    }
    node = NIR_CLASSES[step.kind](**tensors)
    return backend.add(step, node, signal, keeps_state=bool(module.states_of))


def take_states(step: Step, backend: NirBackend, first: int) -> None:
    """Record the arguments after the input of a neuron as its states.

    Args:
        step: the call of the neuron.
        backend: the back end.
        first: the position of the first state.

    Raises:
        UnsupportedError: the model computes a state.
    """
    for value in (*step.args[first:], *step.kwargs.values()):
        if isinstance(value, Signal) and value not in (step.args[:first]):
            backend.graph.take_state(value)
        elif value is not None and not isinstance(value, NeuronState):
            raise UnsupportedError(
                "the model sets its state, but a neuron of NIR keeps its state itself"
            )
        elif isinstance(value, NeuronState):
            raise UnsupportedError("its state is that of another neuron")


def lower_feedback(step: Step, backend: NirBackend) -> Any:
    """Convert a Feedback module to an edge that closes a cycle."""
    path = step.layer.name if step.layer else step.name
    value = step.argument(1, "last")
    if value is None:
        module: Any = step.module
        return backend.graph.feedback(path, module.shape)
    if not isinstance(value, Signal):
        raise UnsupportedError("it keeps a value that does not depend on an input of the model")
    backend.graph.close_feedback(path, value)
    return value


_ADD = ["operator.add", "operator.iadd", "torch.add", "torch.Tensor.add"]
_MUL = ["operator.mul", "operator.imul", "torch.mul", "torch.Tensor.mul", "torch.multiply"]
_RESHAPE = ["torch.reshape", "torch.Tensor.reshape", "torch.Tensor.view"]
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alphadropout featurealphadropout".split()

ROWS = [
    Lowering("nir", lower_linear, layers=["linear"]),
    Lowering("nir", lower_convolution, layers=["conv1d", "conv2d"]),
    Lowering("nir", lower_avgpool2d, layers=["avgpool2d"]),
    Lowering(
        "nir",
        lower_flatten,
        layers=["flatten"],
        functions=["torch.flatten", "torch.Tensor.flatten"],
    ),
    Lowering("nir", lower_reshape, functions=_RESHAPE),
    Lowering("nir", lower_identity, layers=["identity", *_DROPOUTS]),
    Lowering("nir", lower_add, functions=_ADD),
    Lowering("nir", lower_mul, functions=_MUL),
    Lowering("nir", lower_primitive, layers=list(PRIMITIVES)),
    Lowering("nir", lower_feedback, layers=["nir_feedback"]),
]
