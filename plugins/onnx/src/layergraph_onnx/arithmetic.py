"""Elementwise operators."""

from __future__ import annotations

from typing import Any

import torch

import layergraph as lg
from layergraph_onnx.call import INT64, Call, is_value
from layergraph_onnx.table import TABLE

_BOOL = torch.bool


# --- two operands ---


def _binary(call: Call, kind: str, dtype: torch.dtype | None = None) -> Any:
    dtype = dtype or call.out_dtype
    given = call.operand(0, dtype), call.operand(1, dtype, "other")
    return call.backend.number(call.op(kind, *given), dtype)


def _scaled(call: Call, kind: str) -> Any:
    alpha = call.step.kwargs.get("alpha", 1)
    dtype = call.out_dtype
    if alpha == 1:
        return _binary(call, kind)
    if is_value(alpha):
        return lg.decline("its alpha is computed")
    other = call.operand(1, dtype, "other")
    scaled = call.op("Mul", other, call.backend.constant(alpha, dtype))
    return call.op(kind, call.operand(0, dtype), scaled)


@TABLE.functions("add")
def lower_add(call: Call) -> Any:
    """Add; for two masks, logical or."""
    return _binary(call, "Or") if call.out_dtype is _BOOL else _scaled(call, "Add")


@TABLE.functions("sub subtract")
def lower_sub(call: Call) -> Any:
    """Subtract."""
    return _scaled(call, "Sub")


@TABLE.functions("rsub")
def lower_rsub(call: Call) -> Any:
    """Subtract the first operand from the second."""
    if call.step.kwargs.get("alpha", 1) != 1 or len(call.step.args) > 2:
        return lg.decline("its alpha is not 1")
    dtype = call.out_dtype
    return call.op("Sub", call.operand(1, dtype, "other"), call.operand(0, dtype))


@TABLE.functions("mul multiply")
def lower_mul(call: Call) -> Any:
    """Multiply; for two masks, logical and."""
    return _binary(call, "And" if call.out_dtype is _BOOL else "Mul")


@TABLE.functions("div divide true_divide truediv")
def lower_div(call: Call) -> Any:
    """Divide."""
    mode = call.step.kwargs.get("rounding_mode")
    if mode == "floor":
        return lower_floordiv(call)
    if mode is not None:
        return lg.decline("its rounding_mode is 'trunc'")
    dtype = call.out_dtype
    if not dtype.is_floating_point:
        dtype = torch.float32
    return _binary(call, "Div", dtype)


@TABLE.functions("floordiv floor_divide")
def lower_floordiv(call: Call) -> Any:
    """Divide, and round down."""
    dtype = call.out_dtype
    a, b = call.operand(0, dtype), call.operand(1, dtype, "other")
    if dtype.is_floating_point:
        return call.op("Floor", call.op("Div", a, b))
    # Div of ONNX rounds to zero, and Mod has the sign of the divisor.
    exact = call.op("Sub", a, call.op("Mod", a, b))
    return call.backend.number(call.op("Div", exact, b), dtype)


@TABLE.functions("mod remainder")
def lower_mod(call: Call) -> Any:
    """Return the remainder, with the sign of the divisor."""
    dtype = call.out_dtype
    if dtype.is_floating_point:
        a, b = call.operand(0, dtype), call.operand(1, dtype, "other")
        rest = call.op("Mod", a, b, fmod=1)
        zero = call.backend.constant(0, dtype)
        signs = call.op("Mul", rest, b)
        return call.op("Where", call.op("Less", signs, zero), call.op("Add", rest, b), rest)
    return _binary(call, "Mod")


@TABLE.functions("pow float_power")
def lower_pow(call: Call) -> Any:
    """Return a power."""
    dtype = call.out_dtype
    exponent = call.arg(1, "exponent")
    if exponent == 2 and not is_value(exponent):
        x = call.operand(0, dtype)
        return call.op("Mul", x, x)
    return call.op("Pow", call.operand(0, dtype), call.operand(1, dtype, "exponent"))


@TABLE.functions("maximum")
def lower_maximum(call: Call) -> Any:
    """Return the larger number of two."""
    return _binary(call, "Max")


@TABLE.functions("minimum")
def lower_minimum(call: Call) -> Any:
    """Return the smaller number of two."""
    return _binary(call, "Min")


def _compared(call: Call, kind: str, *, negated: bool = False) -> Any:
    dtype = call.promoted(0, 1)
    if dtype is _BOOL and kind != "Equal":
        dtype = torch.int32
    found = call.op(kind, call.operand(0, dtype), call.operand(1, dtype, "other"))
    return call.backend.number(call.op("Not", found) if negated else found, _BOOL)


_COMPARISONS = {
    "eq": ("Equal", False),
    "ne": ("Equal", True),
    "lt": ("Less", False),
    "le": ("LessOrEqual", False),
    "gt": ("Greater", False),
    "ge": ("GreaterOrEqual", False),
}
_SYNONYMS = {
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


def _register_comparison(name: str, kind: str, negated: bool) -> None:
    @TABLE.functions(f"{name} {_SYNONYMS.get(name, name)}")
    def lower_comparison(call: Call) -> Any:
        return _compared(call, kind, negated=negated)


for _name, (_kind, _negated) in _COMPARISONS.items():
    _register_comparison(_name, _kind, _negated)


_LOGIC = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}


def _register_logic(name: str, of_masks: str, of_bits: str) -> None:
    @TABLE.functions(f"{name} {name}_ bitwise_{name}")
    def lower_bits(call: Call) -> Any:
        return _binary(call, of_masks if call.out_dtype is _BOOL else of_bits)

    @TABLE.functions(f"logical_{name}")
    def lower_logic(call: Call) -> Any:
        return call.op(of_masks, call.operand(0, _BOOL), call.operand(1, _BOOL, "other"))


for _name, (_masks, _bits) in _LOGIC.items():
    _register_logic(_name, _masks, _bits)


@TABLE.functions("invert bitwise_not logical_not")
def lower_not(call: Call) -> Any:
    """Negate a mask, or each bit."""
    if call.dtype() is _BOOL or call.step.kind.endswith("logical_not"):
        return call.op("Not", call.operand(0, _BOOL))
    return call.op("BitwiseNot", call.x)


@TABLE.functions("where")
def lower_where(call: Call) -> Any:
    """Select elements by a mask."""
    if len(call.step.args) + len(call.step.kwargs) != 3:
        return lg.decline("it has one argument, and returns indices")
    if call.step.kind == "torch.Tensor.where":
        mask, a, b = 1, 0, 2
    else:
        mask, a, b = 0, 1, 2
    names = {mask: "condition", a: "input", b: "other"}
    dtype = call.out_dtype
    condition = call.operand(mask, _BOOL, names[mask])
    return call.op(
        "Where", condition, call.operand(a, dtype, names[a]), call.operand(b, dtype, names[b])
    )


@TABLE.functions("masked_fill")
def lower_masked_fill(call: Call) -> Any:
    """Put a number where a mask is True."""
    dtype = call.out_dtype
    mask, value = call.operand(1, _BOOL, "mask"), call.operand(2, dtype, "value")
    return call.op("Where", mask, value, call.operand(0, dtype))


@TABLE.functions("addcmul")
def lower_addcmul(call: Call) -> Any:
    """Add a product."""
    dtype = call.out_dtype
    product = call.op("Mul", call.operand(1, dtype, "tensor1"), call.operand(2, dtype, "tensor2"))
    factor = call.step.kwargs.get("value", 1)
    if factor != 1:
        product = call.op("Mul", product, call.value(factor, dtype))
    return call.op("Add", call.operand(0, dtype), product)


@TABLE.functions("clamp clip clamp_min clamp_max")
def lower_clamp(call: Call) -> Any:
    """Keep numbers between bounds."""
    name = call.step.kind.rstrip("_")
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if name.endswith("clamp_max"):
        low, high = None, call.arg(1, "max")
    dtype = call.out_dtype
    x = call.value(call.x, dtype, call.dtype())
    for kind, bound in (("Max", low), ("Min", high)):
        if bound is not None:
            x = call.op(kind, x, call.value(bound, dtype))
    return x


# --- one operand ---

_UNARY = {
    "abs": "Abs", "absolute": "Abs", "neg": "Neg", "negative": "Neg", "exp": "Exp", "log": "Log",
    "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tan": "Tan", "tanh": "Tanh", "sinh": "Sinh",
    "cosh": "Cosh", "asin": "Asin", "acos": "Acos", "atan": "Atan", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "sigmoid": "Sigmoid", "expit": "Sigmoid",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "reciprocal": "Reciprocal",
    "relu": "Relu", "softsign": "Softsign", "mish": "Mish", "hardswish": "HardSwish",
}  # fmt: skip
_FLOATING = frozenset("Abs Neg Sign Relu Floor Ceil Round".split())


def _unary(call: Call, kind: str) -> Any:
    dtype = call.out_dtype
    if len(call.step.args) > 1 and kind == "Round":
        return lg.decline("it rounds to decimals")
    if kind in ("Floor", "Ceil", "Round") and not dtype.is_floating_point:
        return call.op("Identity", call.x)
    if call.step.kind.startswith("math."):
        dtype = torch.float32 if call.dtype() is INT64 else call.dtype()
        found = call.op(kind, call.operand(0, dtype))
        is_int = kind in ("Floor", "Ceil")
        return call.cast(found, INT64) if is_int else call.backend.number(found, dtype)
    return call.op(kind, call.operand(0, dtype))


def _register_unary(name: str, kind: str) -> None:
    @TABLE.functions(name)
    def lower_unary(call: Call) -> Any:
        return _unary(call, kind)

    @TABLE.layers(name)
    def lower_layer(call: Call) -> Any:
        return call.op(kind, call.x)


for _name, _kind in _UNARY.items():
    _register_unary(_name, _kind)


@TABLE.functions("trunc fix")
def lower_trunc(call: Call) -> Any:
    """Round to zero."""
    if call.step.kind == "math.trunc":
        return call.cast(call.x, INT64)
    dtype = call.out_dtype
    x = call.operand(0, dtype)
    return call.op("Mul", call.op("Sign", x), call.op("Floor", call.op("Abs", x)))


@TABLE.functions("rsqrt")
def lower_rsqrt(call: Call) -> Any:
    """Return one divided by the square root."""
    return call.op("Reciprocal", call.op("Sqrt", call.operand(0, call.out_dtype)))


@TABLE.functions("square")
def lower_square(call: Call) -> Any:
    """Return the square."""
    return call.op("Mul", call.x, call.x)


@TABLE.functions("isnan")
def lower_isnan(call: Call) -> Any:
    """Return which elements are NaN."""
    return call.op("IsNaN", call.x)


# --- casts and identities ---


@TABLE.functions("to type float double half long int bool bfloat16 type_as short")
def lower_cast(call: Call) -> Any:
    """Cast to the dtype of the result."""
    dtype = call.out_dtype
    return call.x if call.dtype() is dtype else call.cast(call.x, dtype)


@TABLE.functions(
    "contiguous clone detach dropout alpha_dropout dropout1d dropout2d dropout3d "
    "feature_alpha_dropout feature_dropout cpu requires_grad alias positive pos data"
)
@TABLE.layers("identity dropout dropout1d dropout2d dropout3d alphadropout featurealphadropout")
def lower_identity(call: Call) -> Any:
    """Return the argument unchanged: in evaluation mode, dropout does nothing."""
    if call.step.layer is None and "dropout" in call.step.kind:
        is_on = call.arg(2, "training", call.step.kwargs.get("train", True))
        if is_on and call.arg(1, "p", 0.5):
            return lg.decline("it draws random numbers; give training=False")
    return call.x


@TABLE.functions("item")
def lower_item(call: Call) -> Any:
    """Return the number in a tensor."""
    shape = call.op("Reshape", call.x, call.ints([]))
    return call.backend.number(shape, call.dtype())
