"""Handlers for layers and functions: each declares the weights and appends a loop."""

from __future__ import annotations

from math import prod
from typing import Any

from acme_c.source import Array, Source
from layergraph import decline
from layergraph_backends import Step


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def conv2d(step: Step, c: Source) -> Array | None:
    """Sum over the window and the channels of the group."""
    x, data = step.args[0], step.attributes
    if data.get("padding_mode", "zeros") != "zeros" or isinstance(data["padding"], str):
        return decline("its padding is not a number of zeros")
    n, _, high, wide = x.shape
    _, out, rows, columns = step.meta.shape
    (kh, kw), (sh, sw) = _pair(data["kernel_size"]), _pair(data["stride"])
    (ph, pw), (dh, dw) = _pair(data["padding"]), _pair(data["dilation"])
    per, each = data["in_channels"] // data["groups"], out // data["groups"]
    weight = c.weight(step, "weight").name
    start = f"{c.weight(step, 'bias').name}[o]" if "bias" in step.tensors else "0"
    return c.emit(
        step,
        f"""for (long n = 0; n < {n}; n++) for (long o = 0; o < {out}; o++)
    for (long i = 0; i < {rows}; i++) for (long j = 0; j < {columns}; j++) {{
        float sum = {start};
        for (long k = 0; k < {per}; k++) for (long a = 0; a < {kh}; a++)
            for (long b = 0; b < {kw}; b++) {{
                long r = i * {sh} - {ph} + a * {dh}, s = j * {sw} - {pw} + b * {dw};
                if (r < 0 || r >= {high} || s < 0 || s >= {wide}) continue;
                long channel = o / {each} * {per} + k;
                sum += {x.name}[((n * {x.shape[1]} + channel) * {high} + r) * {wide} + s]
                    * {weight}[((o * {per} + k) * {kh} + a) * {kw} + b];
            }}
        {{out}}[((n * {out} + o) * {rows} + i) * {columns} + j] = sum;
    }}""",
    )


def linear(step: Step, c: Source) -> Array:
    """Multiply each row by the weights."""
    x, inside, out = step.args[0], step.attributes["in_features"], step.attributes["out_features"]
    weight = c.weight(step, "weight").name
    start = f"{c.weight(step, 'bias').name}[o]" if "bias" in step.tensors else "0"
    return c.emit(
        step,
        f"""for (long n = 0; n < {prod(x.shape) // inside}; n++) for (long o = 0; o < {out}; o++) {{
        float sum = {start};
        for (long i = 0; i < {inside}; i++)
            sum += {x.name}[n * {inside} + i] * {weight}[o * {inside} + i];
        {{out}}[n * {out} + o] = sum;
    }}""",
    )


def batchnorm2d(step: Step, c: Source) -> Array | None:
    """Scale each channel by its running statistics."""
    if "running_mean" not in step.tensors:
        return decline("it has no running statistics")
    x = step.args[0]
    used = [name for name in step.tensors if name != "num_batches_tracked"]
    names = {name: c.weight(step, name).name for name in used}
    n, channels, *size = x.shape
    scale = f"{names['weight']}[c]" if "weight" in names else "1"
    shift = f"{names['bias']}[c]" if "bias" in names else "0"
    eps = float(step.attributes["eps"]).hex()
    return c.emit(
        step,
        f"""for (long n = 0; n < {n}; n++) for (long c = 0; c < {channels}; c++)
    for (long i = 0; i < {prod(size)}; i++) {{
        long at = (n * {channels} + c) * {prod(size)} + i;
        {{out}}[at] = ({x.name}[at] - {names["running_mean"]}[c])
            / sqrtf({names["running_var"]}[c] + {eps}f) * {scale} + {shift};
    }}""",
    )


def maxpool2d(step: Step, c: Source) -> Array | None:
    """Take the largest number of each window; a NaN counts as the largest."""
    x, data = step.args[0], step.attributes
    if data.get("return_indices"):
        return decline("it returns indices")
    high, wide = x.shape[-2:]
    rows, columns = step.meta.shape[-2:]
    kernel = data["kernel_size"]
    (kh, kw), (sh, sw) = _pair(kernel), _pair(data.get("stride") or kernel)
    (ph, pw), (dh, dw) = _pair(data.get("padding", 0)), _pair(data.get("dilation", 1))
    return c.emit(
        step,
        f"""for (long n = 0; n < {prod(x.shape[:-2])}; n++)
    for (long i = 0; i < {rows}; i++) for (long j = 0; j < {columns}; j++) {{
        float most = -INFINITY;
        for (long a = 0; a < {kh}; a++) for (long b = 0; b < {kw}; b++) {{
            long r = i * {sh} - {ph} + a * {dh}, s = j * {sw} - {pw} + b * {dw};
            if (r < 0 || r >= {high} || s < 0 || s >= {wide}) continue;
            float number = {x.name}[(n * {high} + r) * {wide} + s];
            if (number > most || number != number) most = number;
        }}
        {{out}}[(n * {rows} + i) * {columns} + j] = most;
    }}""",
    )


def global_average(step: Step, c: Source) -> Array | None:
    """Average each channel."""
    x = step.args[0]
    if step.meta.shape[-2:] != (1, 1):
        return decline("its output is larger than 1 x 1")
    size = prod(x.shape[-2:])
    return c.emit(
        step,
        f"""for (long n = 0; n < {prod(x.shape[:-2])}; n++) {{
        float sum = 0;
        for (long i = 0; i < {size}; i++) sum += {x.name}[n * {size} + i];
        {{out}}[n] = sum / {size};
    }}""",
    )


def relu(step: Step, c: Source) -> Array:
    """Replace negative numbers by zero."""
    x = step.args[0]
    loop = f"for (long i = 0; i < {prod(x.shape)}; i++)"
    return c.emit(step, f"{loop} {{out}}[i] = {x.name}[i] < 0 ? 0 : {x.name}[i];")


def add(step: Step, c: Source) -> Array | None:
    """Add two arrays of one shape, or an array and a number."""
    arrays = [each for each in step.args if isinstance(each, Array)]
    if len(step.args) != 2 or step.kwargs or {each.shape for each in arrays} != {step.meta.shape}:
        return decline("its arguments have other shapes than its result, or it scales one")
    one, other = (f"{a.name}[i]" if isinstance(a, Array) else str(float(a)) for a in step.args)
    return c.emit(
        step, f"for (long i = 0; i < {prod(step.meta.shape)}; i++) {{out}}[i] = {one} + {other};"
    )


def same(step: Step, _: Source) -> Array:
    """Return the same array with another shape."""
    return Array(step.args[0].name, step.meta.shape)
