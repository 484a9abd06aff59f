"""The table of the functions that may be nodes.

Most names follow from torch's namespaces by rule. A public function has a name if torch lists it in
:func:`torch.overrides.get_overridable_functions`, if it is one of torch's operators and returns a
tensor, or if its code calls ``handle_torch_function``. The lists here contain only exceptions from
this rule.
"""

from __future__ import annotations

import builtins
import functools
import math
import operator
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.backends import ContextProp
from torch.overrides import get_overridable_functions

from layergraph.control_flow import (
    choices,
    generators,
    gradients,
    guards,
    loops,
    regions,
    transforms,
)
from layergraph.functions import checked, fields
from layergraph.functions.operations import give_tensors, is_refused

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a node, in the terms of torch.fx.

    Attributes:
        op: ``call_function``, ``call_method`` or ``attribute``.
        target: the function, or the name of the method or attribute.
    """

    op: Literal["call_function", "call_method", "attribute"]
    target: Function | str


class _Listed(NamedTuple):
    """Functions that have names although the rule does not include them."""

    prefix: str
    home: object
    names: Iterable[str]


# The namespaces of the rule. Of several names for one function, the last one here counts.
NAMESPACES = (torch.special, torch.fft, torch.linalg, torch, torch.nn.functional)

TAKES_BODIES = frozenset(
    {
        "layergraph.loop",
        *(f"layergraph.{name}" for name in transforms.NAMES),
        *(name for name, _ in transforms.higher_order()),
    }
)
"""The higher-order functions of torch and ours; their nodes may take bodies."""

FACTORIES = (
    "arange as_tensor asarray bartlett_window blackman_window empty empty_strided eye full "
    "hamming_window hann_window kaiser_window linspace logspace normal ones rand randint randn "
    "randperm range scalar_tensor tensor tril_indices triu_indices vander zeros"
).split()
"""Functions that make tensors without a tensor argument, which could override the call."""

MATH = "ceil cos exp floor gcd isqrt log log10 log2 pow sin sqrt trunc".split()
"""Functions of Python's ``math`` that model code calls on sizes."""

SIZED_METHODS = (
    "as_strided expand index_select narrow new_empty new_full new_ones new_zeros repeat "
    "repeat_interleave reshape roll select split tile tril triu unflatten unfold view"
).split()
"""Methods that take sizes; called on a parameter, they accept no symbolic size."""

_OPERATORS = (
    "abs add and_ contains delitem eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul "
    "imod imul index invert ior ipow irshift isub itruediv ixor le lshift lt matmul mod mul ne neg "
    "not_ or_ pos pow rshift setitem sub truediv xor"
).split()

# Torch does not check the arguments of these, so a graph runs functions that do.
_CHECKED: dict[str, Function] = {
    "_convert_indices_from_coo_to_csr": checked.coo_to_csr,
    "_pad_packed_sequence": checked.pad_packed_sequence,
    "_weight_norm": checked.weight_norm,
    **{
        name: checked.sparse(getattr(torch, name))
        for form in "bsc bsr compressed coo csc csr".split()
        for name in [f"sparse_{form}_tensor"]
    },
}

_LISTED: tuple[_Listed, ...] = (
    _Listed("torch", torch, FACTORIES),
    # Torch's list lacks these, but its own layers call some of them.
    _Listed(
        "torch",
        torch,
        (
            "_assert _pack_padded_sequence as_strided broadcast_shapes "
            "promote_types rand_like randint_like randn_like result_type unflatten"
        ).split(),
    ),
    # Getters of torch's state; the rebuilt graph calls them at run time.
    _Listed(
        "torch",
        torch,
        (
            "are_deterministic_algorithms_enabled get_autocast_dtype get_default_device "
            "get_default_dtype get_float32_matmul_precision get_num_threads is_anomaly_enabled "
            "is_autocast_cache_enabled is_autocast_enabled "
            "is_deterministic_algorithms_warn_only_enabled is_grad_enabled "
            "is_inference_mode_enabled"
        ).split(),
    ),
    _Listed("torch._C._nn", torch._C._nn, ("pad_sequence",)),
    _Listed("torch.autograd", torch.autograd, ("grad",)),
    _Listed("torch.nn", torch.nn, ("Parameter",)),
    _Listed(
        "torch.sparse",
        torch.sparse,
        "addmm log_softmax mm sampled_addmm softmax spdiags".split(),
    ),
    _Listed("operator", operator, _OPERATORS),
    _Listed("math", math, MATH),
    _Listed("builtins", builtins, ("divmod", "len", "max", "min", "round", "tuple")),
    # Guards and regions.
    _Listed("layergraph", guards, [each.__name__ for each in guards.GUARDS]),
    _Listed("layergraph", fields, ("attributes", "fields", "set_fields")),
    _Listed("layergraph", choices, "choose holds truth".split()),
    _Listed("layergraph", loops, ("loop",)),
    _Listed("layergraph", generators, generators.NAMES),
    _Listed("layergraph", gradients, gradients.NAMES),
    _Listed("layergraph", transforms, transforms.NAMES),
    _Listed(
        "layergraph",
        regions,
        "set_grad_enabled enter_autocast exit_autocast select_attention".split(),
    ),
)

# Methods that torch leaves out of its list.
_METHODS = (
    "as_strided new new_empty new_empty_strided new_full new_ones new_tensor new_zeros stride "
    "to_padded_tensor to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr "
    "unflatten"
).split()

# These run code, or read or change memory outside of the model.
_REFUSED_METHODS = frozenset(
    "apply_ backward const_data_ptr data_ptr map2_ map_ module_load numpy register_hook "
    "register_post_accumulate_grad_hook set_ share_memory_ storage storage_type "
    "to_dlpack typed_storage untyped_storage".split()
)
_REFUSED_ATTRIBUTES = frozenset(
    "grad grad_dtype grad_fn name output_nr retains_grad volatile".split()
)

# Prefixes of operators that no node may call: kernels of one backend, and operators that do not
# check indices, sizes or memory.
_REFUSED_OPERATORS = (
    "cudnn_ empty_quantized from_file miopen_ mkldnn_ quantized_ resize_ segment_reduce sparse_"
).split()

# Attributes of a tensor's device and dtype.
_DEVICE_ATTRIBUTES = ("type", "index")
_DTYPE_ATTRIBUTES = ("is_floating_point", "is_complex", "is_signed")


@functools.cache
def attributes() -> dict[str, str]:
    """Return the attributes of tensors and of torch's result types, with their full names."""
    attributes = {name: f"torch.dtype.{name}" for name in _DTYPE_ATTRIBUTES}
    attributes |= {name: f"torch.device.{name}" for name in _DEVICE_ATTRIBUTES}
    for each in vars(torch.return_types).values():
        for name, member in vars(each).items() if isinstance(each, type) else ():
            if isinstance(member, types.MemberDescriptorType) and not name.startswith("_"):
                attributes[name] = f"torch.return_types.{name}"
    for name in dir(torch.Tensor):
        member = getattr(torch.Tensor, name)
        usable = not name.startswith("_") and name not in _REFUSED_ATTRIBUTES
        if usable and isinstance(member, types.GetSetDescriptorType | property):
            attributes[name] = f"torch.Tensor.{name}"
    return attributes


@functools.cache
def by_name() -> dict[str, Target]:
    """Return the table of all functions, methods and attributes, by full name."""
    table = {full: Target("attribute", name) for name, full in attributes().items()}
    listed = get_overridable_functions()
    operators = [f"__{name}__" for name in sorted(_operator_methods())]
    for name in _METHODS + operators + [each.__name__ for each in listed[torch.Tensor]]:
        usable = not name.startswith("_") or name.strip("_") in _operator_methods()
        if usable and name not in _REFUSED_METHODS and callable(getattr(torch.Tensor, name, None)):
            table[f"torch.Tensor.{name}"] = Target("call_method", name)
    for namespace in NAMESPACES:
        known = {*listed[namespace], *listed[torch.functional]}
        for name, found in vars(namespace).items():
            if name.startswith("_") or not callable(found) or isinstance(found, type):
                continue
            if is_refused(name):
                continue
            own = is_own(found)
            member = found if own else getattr(torch._C._VariableFunctions, name, found)
            if member in known or _is_operator(member) or _offers_itself(member):
                table[f"{namespace.__name__}.{name}"] = Target("call_function", member)
    for listed_names in _LISTED:
        for name in listed_names.names:
            function = getattr(listed_names.home, name)
            table[f"{listed_names.prefix}.{name}"] = Target("call_function", function)
    table |= {f"torch.{name}": Target("call_function", each) for name, each in _CHECKED.items()}
    table |= {full: Target("call_function", each) for full, each in _flags_of_backends()}
    table |= {full: Target("call_function", each) for full, each in transforms.higher_order()}
    return table


def _flags_of_backends() -> Iterable[tuple[str, Function]]:
    """Return the getters of the flags of torch's backends, by name."""
    for backend in list(vars(torch.backends).values()):
        for name, each in vars(type(backend)).items():
            if isinstance(each, ContextProp) and type(each.getter) is types.BuiltinFunctionType:
                yield f"{backend.__name__}.{name}", each.getter


def is_own(member: Any) -> bool:
    """Return whether a member of torch's namespaces is torch's own.

    Some libraries put a function of theirs in the place of one of torch's operators, which it
    calls; the operator keeps the name.
    """
    return (getattr(member, "__module__", None) or "torch").partition(".")[0] == "torch"


def _operator_methods() -> frozenset[str]:
    names = {name.strip("_") for name in _OPERATORS} | {"div"}
    return frozenset(names | {f"r{name}" for name in names} | {"reversed"})


def _is_operator(function: Any) -> bool:
    """Return whether a C function is one of torch's operators, and returns a tensor."""
    if type(function) is not types.BuiltinFunctionType:
        return False
    name = function.__name__
    if name.startswith(tuple(_REFUSED_OPERATORS)):
        return False
    return give_tensors(_operators(name))


def _operators(name: str) -> list[Any]:
    return torch._C._jit_get_schemas_for_operator(f"aten::{name}")


def _offers_itself(function: Any) -> bool:
    """Return whether a Python function calls ``__torch_function__`` modes."""
    is_python = type(function) is types.FunctionType
    return is_python and not HANDING_OVER.isdisjoint(function.__code__.co_names)


HANDING_OVER = frozenset(
    {"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"}
)
"""Torch's Python functions call these to invoke ``__torch_function__`` modes."""


@functools.cache
def names() -> dict[Function, str]:
    """Return the full names of all functions and methods, by function."""
    found: dict[Function, str] = {}
    for full, target in by_name().items():
        if target.op == "call_function":
            known = found.get(target.target)  # type: ignore[arg-type]
            if known is None or not _is_preferred(known, full):
                found[target.target] = full  # type: ignore[index]
        elif full.startswith("torch.Tensor."):
            member = getattr(torch.Tensor, str(target.target))
            found[member if target.op == "call_method" else member.__get__] = full
    found |= {getattr(torch, name): f"torch.{name}" for name in _CHECKED}
    return found


def _is_preferred(known: str, other: str) -> bool:
    """Return whether a function keeps its name: in one namespace, an operator's name wins."""
    (home, _, name), (other_home, _, other_name) = known.rpartition("."), other.rpartition(".")
    return home == other_home and bool(_operators(name)) and not _operators(other_name)
