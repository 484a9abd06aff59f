"""Handlers for layers of torch.nn and functions of torch, and for the modules of this package."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.hook_types.lowerings import Lowering
from layergraph_nir.graph import NeuronState, Shape, StoredTensor, UnsayableError, Wire
from layergraph_nir.modules import PRIMITIVES
from layergraph_nir.writing import METADATA, NirBackend

if TYPE_CHECKING:
    from layergraph_backends import Step

NIR_CLASSES = {kind: getattr(nir, cls.__name__) for kind, cls in PRIMITIVES.items()}


def array(tensor: torch.Tensor) -> Any:
    """Return the numbers of a tensor.

    Raises:
        UnsayableError: numpy has no such dtype.
    """
    try:
        return tensor.detach().cpu().contiguous().numpy().copy()
    except (TypeError, RuntimeError):
        raise UnsayableError(
            f"it holds numbers of {tensor.dtype}, which numpy has not; cast the model to float32"
        ) from None


def broadcast(tensor: torch.Tensor, shape: Shape) -> Any:
    """Return the numbers of a tensor for each element of a signal."""
    try:
        return array(tensor.broadcast_to(shape))
    except RuntimeError:
        raise UnsayableError(
            f"it holds a tensor of the shape {tuple(tensor.shape)} for a signal of the shape "
            f"{shape} besides the batch"
        ) from None


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Return the node of a linear layer."""
    if bias is None:
        return nir.Linear(weight=array(weight))
    return nir.Affine(weight=array(weight), bias=array(bias))


def convolution(module: Any, shape: Shape) -> Any:
    """Return the node of a convolution for an input of a shape."""
    if module.padding_mode != "zeros":
        raise UnsayableError(f"its padding_mode is {module.padding_mode!r}; NIR pads with zeros")
    dims = module.weight.dim() - 2
    if len(shape) != dims + 1:
        raise UnsayableError(f"its input has the shape {shape} besides the batch; give a batch")
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
    """Say a linear layer as Affine or Linear."""
    wire = backend.signal(step)
    if len(wire.shape) != 1:
        raise UnsayableError(
            f"its input has the shape {wire.shape} besides the batch, and NIR's Affine and Linear "
            "take vectors; flatten it first"
        )
    return backend.add(step, linear(step.tensors["weight"], step.tensors.get("bias")), wire)


def lower_convolution(step: Step, backend: NirBackend) -> Any:
    """Say a convolution as Conv1d or Conv2d."""
    wire = backend.signal(step)
    return backend.add(step, convolution(step.module, wire.shape), wire)


def lower_avgpool2d(step: Step, backend: NirBackend) -> Any:
    """Say an average pooling as AvgPool2d, and one that divides by 1 as SumPool2d."""
    module: Any = step.module
    padding = _sizes(module.padding, 2)
    if module.ceil_mode:
        raise UnsayableError("its ceil_mode is True; NIR rounds sizes down")
    if any(padding) and not module.count_include_pad and module.divisor_override is None:
        raise UnsayableError("its count_include_pad is False; NIR counts the padding")
    if module.divisor_override not in (None, 1):
        raise UnsayableError(
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
    """Say a flattening behind the batch as Flatten, whose dimensions do not count the batch."""
    wire = backend.signal(step)
    given = [step.argument(1, "start_dim", 0), step.argument(2, "end_dim", -1)]
    if step.layer is not None:
        module: Any = step.module
        given = [module.start_dim, module.end_dim]
    dims = len(wire.shape) + 1
    if given[0] in (0, -dims):
        raise UnsayableError("it flattens the batch too; let it start at dimension 1")
    # NIR does not count the batch. A negative dimension counts from the end.
    start, end = (each - 1 if each > 0 else each for each in given)
    node = nir.Flatten(input_type=np.array(wire.shape), start_dim=start, end_dim=end)
    return backend.add(step, node, wire)


def lower_reshape(step: Step, backend: NirBackend) -> Any:
    """Say a reshaping to vectors as Flatten."""
    wire = backend.signal(step)
    sizes = getattr(step.meta, "shape", None)
    if sizes is None or tuple(sizes[1:]) != (math.prod(wire.shape),):
        raise UnsayableError(f"its result has the shape {sizes}; NIR flattens, and has no reshape")
    node = nir.Flatten(input_type=np.array(wire.shape), start_dim=0, end_dim=-1)
    return backend.add(step, node, wire)


def lower_identity(step: Step, backend: NirBackend) -> Any:
    """Leave out a layer that gives its input in evaluation mode."""
    return backend.signal(step)


def lower_add(step: Step, backend: NirBackend) -> Any:
    """Say a sum as two edges into one node, which NIR adds."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    if not isinstance(one, Wire) or not isinstance(other, Wire):
        raise UnsayableError("it adds something that is no signal; NIR has no constants")
    if one.shape != other.shape:
        raise UnsayableError(f"it adds signals of the shapes {one.shape} and {other.shape}")
    if step.kwargs.get("alpha", 1) != 1:
        raise UnsayableError("its alpha is not 1")
    return backend.graph.added(one, other)


def lower_mul(step: Step, backend: NirBackend) -> Any:
    """Say a product with a number or a parameter as Scale."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    wire, factor = (other, one) if isinstance(other, Wire) else (one, other)
    if isinstance(factor, StoredTensor):
        numbers = factor.tensor
    elif isinstance(factor, bool | int | float):
        numbers = torch.tensor(float(factor))
    else:
        raise UnsayableError("it multiplies two signals; NIR scales by numbers")
    if not isinstance(wire, Wire):
        raise UnsayableError("it multiplies nothing that depends on an input of the model")
    if numbers.dim() > len(wire.shape):
        numbers = numbers.squeeze(0)
    return backend.add(step, nir.Scale(scale=broadcast(numbers, wire.shape)), wire)


def lower_primitive(step: Step, backend: NirBackend) -> Any:
    """Say a module of this package as the primitive that it is."""
    module: Any = step.module
    if "dt" in step.attributes and module.dt != backend.dt:
        raise UnsayableError(f"its dt is {module.dt}, and that of the graph {backend.dt}; give dt")
    wire = backend.signal(step, 0, "x")
    take_states(step, backend, 1)
    tensors = {
        name: broadcast(each, wire.shape)
        for name, each in step.tensors.items()
        if name in module.parameters_of
    }
    node = NIR_CLASSES[step.kind](**tensors)
    return backend.add(step, node, wire, keeps_state=bool(module.states_of))


def take_states(step: Step, backend: NirBackend, first: int) -> None:
    """Note that the arguments of a neuron after its signal are its states.

    Raises:
        UnsayableError: the model computes one of them.
    """
    for value in (*step.args[first:], *step.kwargs.values()):
        if isinstance(value, Wire) and value not in (step.args[:first]):
            backend.graph.take_state(value)
        elif value is not None and not isinstance(value, NeuronState):
            raise UnsayableError("the model sets its state, which a neuron of NIR keeps")
        elif isinstance(value, NeuronState):
            raise UnsayableError("its state is that of another neuron")


def lower_feedback(step: Step, backend: NirBackend) -> Any:
    """Say a value of the step before as an edge that closes a cycle."""
    path = step.layer.name if step.layer else step.name
    value = step.argument(1, "last")
    if value is None:
        module: Any = step.module
        return backend.graph.feedback(path, module.shape)
    if not isinstance(value, Wire):
        raise UnsayableError("it keeps something that is no signal")
    backend.graph.close_feedback(path, value)
    return value


_ADD = [f"{home}.{name}" for name in ("add", "iadd") for home in ("operator",)]
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
    Lowering("nir", lower_add, functions=[*_ADD, "torch.add", "torch.Tensor.add"]),
    Lowering("nir", lower_mul, functions=_MUL),
    Lowering("nir", lower_primitive, layers=list(PRIMITIVES)),
    Lowering("nir", lower_feedback, layers=["nir_feedback"]),
]
