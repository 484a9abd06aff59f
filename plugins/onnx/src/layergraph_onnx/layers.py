"""Layers with weights, pooling and padding."""

from __future__ import annotations

from typing import Any

import torch

import layergraph as lg
from layergraph_onnx.call import INT64, Call, is_value
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Value

# --- convolutions ---


@TABLE.layers("conv1d conv2d conv3d")
def lower_conv(call: Call) -> Any:
    """Convolve."""
    module: Any = call.step.module
    axes = len(module.kernel_size)
    if call.rank() != axes + 2:
        return lg.decline("its input has no batch")
    x, pads = call.x, _pads(module.padding, module)
    if module.padding_mode != "zeros":
        modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        both = call.ints([0, 0, *pads[:axes], 0, 0, *pads[axes:]])
        x, pads = call.op("Pad", x, both, mode=modes[module.padding_mode]), [0] * (2 * axes)
    return call.op(
        "Conv",
        x,
        call.weight("weight"),
        *_optional(call.weight("bias")),
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=pads,
        dilations=list(module.dilation),
        group=module.groups,
    )


def _optional(value: Value | None) -> list[Value]:
    return [] if value is None else [value]


def _pads(padding: Any, module: Any) -> list[int]:
    if padding == "valid":
        return [0] * (2 * len(module.kernel_size))
    if padding == "same":
        total = [
            each * (size - 1)
            for each, size in zip(module.dilation, module.kernel_size, strict=True)
        ]
        begin = [each // 2 for each in total]
        return [*begin, *(a - b for a, b in zip(total, begin, strict=True))]
    return [*padding, *padding]


@TABLE.functions("conv1d conv2d conv3d")
def lower_conv_function(call: Call) -> Any:
    """Convolve with weights that are values."""
    axes = int(call.step.kind[-2])
    stride, padding = call.arg(3, "stride", 1), call.arg(4, "padding", 0)
    dilation, groups = call.arg(5, "dilation", 1), call.arg(6, "groups", 1)
    if call.rank() != axes + 2 or isinstance(padding, str):
        return lg.decline("its input has no batch, or its padding is a text")
    return call.op(
        "Conv",
        call.x,
        call.arg(1, "weight"),
        *_optional(call.arg(2, "bias")),
        strides=_each(stride, axes),
        pads=_each(padding, axes) * 2,
        dilations=_each(dilation, axes),
        group=groups,
    )


def _each(given: Any, axes: int) -> list[int]:
    """Return a setting for each axis."""
    if isinstance(given, int):
        return [given] * axes
    return list(given) * (axes if len(given) == 1 else 1)


@TABLE.layers("convtranspose1d convtranspose2d convtranspose3d")
def lower_conv_transpose(call: Call) -> Any:
    """Transposed convolution."""
    module: Any = call.step.module
    if call.rank() != len(module.kernel_size) + 2 or len(call.step.args) > 1:
        return lg.decline("its input has no batch, or it takes the size of its output")
    return call.op(
        "ConvTranspose",
        call.x,
        call.weight("weight"),
        *_optional(call.weight("bias")),
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[*module.padding] * 2,
        output_padding=list(module.output_padding),
        dilations=list(module.dilation),
        group=module.groups,
    )


# --- normalization ---


@TABLE.layers("batchnorm1d batchnorm2d batchnorm3d syncbatchnorm")
def lower_batchnorm(call: Call) -> Any:
    """Normalize with the statistics of the layer."""
    module: Any = call.step.module
    if module.running_mean is None or module.training:
        return lg.decline("it computes statistics of its input")
    count = module.num_features
    numbers = {
        "weight": torch.ones(count, dtype=call.out_dtype),
        "bias": torch.zeros(count, dtype=call.out_dtype),
    }
    given = [
        call.weight(name) or call.backend.constant(numbers[name], call.out_dtype)
        for name in ("weight", "bias")
    ]
    statistics = [call.weight(name) for name in ("running_mean", "running_var")]
    return call.op("BatchNormalization", call.x, *given, *statistics, epsilon=module.eps)


@TABLE.layers("layernorm")
def lower_layernorm(call: Call) -> Any:
    """Normalize over the last axes."""
    module: Any = call.step.module
    return _layernorm(
        call, module.normalized_shape, call.weight("weight"), call.weight("bias"), module.eps
    )


@TABLE.functions("layer_norm")
def lower_layernorm_function(call: Call) -> Any:
    """Normalize over the last axes."""
    weight, bias = call.arg(2, "weight"), call.arg(3, "bias")
    return _layernorm(call, call.arg(1, "normalized_shape"), weight, bias, call.arg(4, "eps", 1e-5))


def _layernorm(call: Call, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    if any(map(is_value, shape)):
        return lg.decline("the shape that it normalizes is computed")
    if weight is None:
        weight = call.backend.constant(torch.ones(tuple(shape)), call.out_dtype)
    return call.op(
        "LayerNormalization", call.x, weight, *_optional(bias), axis=-len(shape), epsilon=eps
    )


@TABLE.layers("groupnorm")
def lower_groupnorm(call: Call) -> Any:
    """Normalize over groups of channels."""
    module: Any = call.step.module
    return _groupnorm(
        call, module.num_groups, call.weight("weight"), call.weight("bias"), module.eps
    )


@TABLE.functions("group_norm")
def lower_groupnorm_function(call: Call) -> Any:
    """Normalize over groups of channels."""
    weight, bias = call.arg(2, "weight"), call.arg(3, "bias")
    return _groupnorm(call, call.arg(1, "num_groups"), weight, bias, call.arg(4, "eps", 1e-5))


def _groupnorm(call: Call, groups: int, weight: Any, bias: Any, eps: float) -> Any:
    shape, dtype = call.shape(), call.out_dtype
    if groups < 1 or sum(isinstance(each, str) for each in shape) > 1:
        return lg.decline("more than one size of its input has a name")
    batch = shape[0]
    number = call.backend.constant
    # InstanceNormalization over each group is what torch.onnx writes, too: exact for all opsets.
    grouped = call.op("Reshape", call.x, call.ints([0, groups, -1]))
    ones, zeros = (number(fill(groups), dtype) for fill in (torch.ones, torch.zeros))
    normal = call.op("InstanceNormalization", grouped, ones, zeros, epsilon=eps)
    found = call.reshaped(normal, (batch, *shape[1:]))
    axes = list(range(1, len(shape) - 1))
    if weight is not None:
        found = call.op("Mul", found, call.unsqueeze(weight, axes))
    return found if bias is None else call.op("Add", found, call.unsqueeze(bias, axes))


@TABLE.layers("instancenorm1d instancenorm2d instancenorm3d")
def lower_instancenorm(call: Call) -> Any:
    """Normalize each channel of each example."""
    module: Any = call.step.module
    if module.track_running_stats or call.rank() < 3:
        return lg.decline("it has running statistics, or its input no batch")
    count = module.num_features
    weight = call.weight("weight") or call.backend.constant(torch.ones(count), call.out_dtype)
    bias = call.weight("bias") or call.backend.constant(torch.zeros(count), call.out_dtype)
    return call.op("InstanceNormalization", call.x, weight, bias, epsilon=module.eps)


@TABLE.layers("rmsnorm")
def lower_rmsnorm(call: Call) -> Any:
    """Divide by the root of the mean square over the last axes."""
    module: Any = call.step.module
    dtype = call.out_dtype
    eps = torch.finfo(dtype).eps if module.eps is None else module.eps
    axes = call.ints(range(-len(module.normalized_shape), 0))
    mean = call.op("ReduceMean", call.op("Mul", call.x, call.x), axes, keepdims=1)
    root = call.op("Sqrt", call.op("Add", mean, call.value(eps, dtype)))
    found = call.op("Mul", call.x, call.op("Reciprocal", root))
    weight = call.weight("weight")
    return found if weight is None else call.op("Mul", found, weight)


# --- tables ---


@TABLE.layers("embedding")
def lower_embedding(call: Call) -> Any:
    """Look rows up."""
    module: Any = call.step.module
    if module.max_norm is not None:
        return lg.decline("it changes its weights")
    return call.op("Gather", call.weight("weight"), call.x, axis=0)


@TABLE.functions("embedding")
def lower_embedding_function(call: Call) -> Any:
    """Look rows up."""
    if call.arg(3, "max_norm") is not None:
        return lg.decline("it changes its weights")
    return call.op("Gather", call.arg(1, "weight"), call.x, axis=0)


@TABLE.layers("prelu")
def lower_prelu(call: Call) -> Any:
    """ReLU with a slope that is learned."""
    slope = call.weight("weight")
    axes = list(range(1, call.rank() - 1))
    return call.op("PRelu", call.x, call.unsqueeze(slope, axes))  # type: ignore[arg-type]


# --- pooling ---


@TABLE.layers("maxpool1d maxpool2d maxpool3d avgpool1d avgpool2d avgpool3d")
def lower_pool(call: Call) -> Any:
    """Pool with the settings of a layer."""
    module: Any = call.step.module
    return _pooled(call, {name: getattr(module, name, None) for name in {*_MAX, *_AVG}})


_MAX = "kernel_size stride padding dilation ceil_mode return_indices".split()
_AVG = "kernel_size stride padding ceil_mode count_include_pad divisor_override".split()


@TABLE.functions("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d")
def lower_pool_function(call: Call) -> Any:
    """Pool with the settings in the arguments."""
    listed = _MAX if "max_pool" in call.step.kind else _AVG
    settings = {name: call.arg(at + 1, name) for at, name in enumerate(listed)}
    if listed is _AVG and settings["count_include_pad"] is None:
        settings["count_include_pad"] = True
    return _pooled(call, settings)


def _pooled(call: Call, settings: dict[str, Any]) -> Any:
    is_max = "max" in call.step.kind
    axes = int(call.step.kind[-2])
    if call.rank() != axes + 2 or settings.get("return_indices"):
        return lg.decline("its input has no batch, or it returns indices")
    if settings.get("divisor_override") or (settings.get("ceil_mode") and not is_max):
        return lg.decline("it has ceil_mode or divisor_override")
    kernel = _each(settings["kernel_size"], axes)
    stride = settings["stride"]
    common: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": kernel if stride in (None, (), []) else _each(stride, axes),
        "pads": _each(settings["padding"] or 0, axes) * 2,
        "ceil_mode": int(bool(settings["ceil_mode"])),
    }
    if is_max:
        dilations = _each(settings["dilation"] or 1, axes)
        return call.op("MaxPool", call.x, dilations=dilations, **common)
    include = int(bool(settings["count_include_pad"]))
    return call.op("AveragePool", call.x, count_include_pad=include, **common)


@TABLE.layers("adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d")
@TABLE.functions("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")
def lower_adaptive_pool(call: Call) -> Any:
    """Average to a given size."""
    axes = int(call.step.kind[-2])
    if call.rank() != axes + 2:
        return lg.decline("its input has no batch")
    sizes, results = call.shape()[2:], call.out.shape[2:]
    if all(each == 1 for each in results):
        return call.op("GlobalAveragePool", call.x)
    if not all(isinstance(each, int) for each in (*sizes, *results)):
        return lg.decline("a size that it averages over has a name")
    pairs = [(int(a), int(b)) for a, b in zip(sizes, results, strict=True)]
    if any(a % b for a, b in pairs):
        return lg.decline("a size of its input is no multiple of that of its output")
    kernel = [a // b for a, b in pairs]
    return call.op("AveragePool", call.x, kernel_shape=kernel, strides=kernel)


# --- padding and resizing ---


@TABLE.functions("pad")
def lower_pad(call: Call) -> Any:
    """Pad."""
    mode, value = call.arg(2, "mode", "constant"), call.arg(3, "value")
    return _padded(call, list(call.arg(1, "pad")), mode, value or 0)


@TABLE.layers(
    "constantpad1d constantpad2d constantpad3d zeropad1d zeropad2d zeropad3d reflectionpad1d "
    "reflectionpad2d reflectionpad3d replicationpad1d replicationpad2d replicationpad3d"
)
def lower_pad_layer(call: Call) -> Any:
    """Pad."""
    module: Any = call.step.module
    kinds = {"refl": "reflect", "repl": "replicate"}
    mode = kinds.get(call.step.kind[:4], "constant")
    return _padded(call, list(module.padding), mode, getattr(module, "value", 0))


def _padded(call: Call, pads: list[Any], mode: str, value: Any) -> Any:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    rank, dtype = call.rank(), call.out_dtype
    if mode not in modes or any(map(is_value, pads)):
        return lg.decline("its padding is circular or computed")
    before, after = [0] * rank, [0] * rank
    for at in range(len(pads) // 2):
        before[rank - 1 - at], after[rank - 1 - at] = pads[2 * at], pads[2 * at + 1]
    if mode != "constant" and min(before + after) < 0:
        return lg.decline("its padding is negative")
    both = call.ints([*before, *after])
    if mode == "constant":
        if dtype is torch.bool:
            padded = call.op("Pad", call.cast(call.x, INT64), both, call.value(int(value), INT64))
            return call.cast(padded, dtype)
        return call.op("Pad", call.x, both, call.value(value, dtype))
    return call.op("Pad", call.x, both, mode=modes[mode])
