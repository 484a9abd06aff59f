"""Stable names of the functions that may be nodes, and what they stand for.

The names follow from torch's namespaces by rule. A public function has one if torch lists it in
:func:`torch.overrides.get_overridable_functions`, if it is one of torch's operators and gives a
tensor, or if its code offers itself to function modes. Here are only the things that the rule
leaves out or should not let in. A name leads to an import only if a plugin has listed it, and never
to an attribute that is not listed.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator
import sys
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.overrides import get_overridable_functions

from layergraph import checked, guards, regions
from layergraph.errors import BuildError, first_line
from layergraph.operations import (
    OPERATIONS,
    OPS,
    changes_arguments,
    give_tensors,
    gives_tensors,
    is_refused,
    overloads,
    own_operation,
    registered,
)

Function = Callable[..., Any]

_OPERATORS = (
    "abs add and_ contains delitem eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul "
    "imod imul index invert ior ipow irshift isub itruediv ixor le lshift lt matmul mod mul ne neg "
    "not_ or_ pos pow rshift setitem sub truediv xor"
).split()

# The namespaces of functions. Of several names for one function, the last one here counts.
NAMESPACES = (torch.special, torch.fft, torch.linalg, torch, torch.nn.functional)

# They make tensors from none, so there is nothing in their arguments to override.
FACTORIES = (
    "arange as_tensor asarray bartlett_window blackman_window empty empty_strided eye full "
    "hamming_window hann_window kaiser_window linspace logspace normal ones rand randint randn "
    "randperm range scalar_tensor tensor tril_indices triu_indices vander zeros"
).split()

# What model code does with sizes.
MATH = "ceil exp floor gcd isqrt log log10 log2 pow sqrt trunc".split()
_BUILTINS: tuple[Function, ...] = (divmod, round)

# What a graph does besides computing.
_OWN: tuple[Function, ...] = (
    guards.assume,
    guards.assume_container,
    guards.assume_environment,
    guards.assume_length,
    guards.assume_tensor,
    guards.assume_truth,
    regions.set_grad_enabled,
    regions.enter_autocast,
    regions.exit_autocast,
)

# Methods that take sizes: of a parameter they take no size that stands for one.
SIZED_METHODS = (
    "as_strided expand index_select narrow new_empty new_full new_ones new_zeros repeat "
    "repeat_interleave reshape roll select split tile tril triu unflatten unfold view"
).split()

# Torch leaves them out for other reasons; its own layers call some of them.
_UNLISTED = (
    "_assert _pack_padded_sequence as_strided broadcast_shapes "
    "promote_types rand_like randint_like randn_like result_type unflatten"
).split()

# Getters of torch's state: a graph calls them again.
_STATE = (
    "are_deterministic_algorithms_enabled get_autocast_dtype get_default_device get_default_dtype "
    "get_float32_matmul_precision get_num_threads is_anomaly_enabled is_autocast_cache_enabled "
    "is_autocast_enabled is_deterministic_algorithms_warn_only_enabled is_grad_enabled "
    "is_inference_mode_enabled"
).split()

_SPARSE = "addmm log_softmax mm sampled_addmm softmax spdiags".split()

# Torch does not check what these are given: a graph runs functions that do.
_CHECKED: dict[str, Function] = {
    "_pad_packed_sequence": checked.pad_packed_sequence,
    "_weight_norm": checked.weight_norm,
}

_METHODS = (
    "as_strided new new_empty new_empty_strided new_full new_ones new_tensor new_zeros stride "
    "to_padded_tensor unflatten"
).split()

# They run code or read memory that is none of the model's, or do something to the outside.
_REFUSED_METHODS = frozenset(
    "apply_ backward const_data_ptr data_ptr map2_ map_ module_load numpy register_hook "
    "register_post_accumulate_grad_hook retain_grad set_ share_memory_ storage storage_type "
    "to_dlpack typed_storage untyped_storage".split()
)
_REFUSED_ATTRIBUTES = frozenset(
    "grad grad_dtype grad_fn is_leaf name output_nr retains_grad volatile".split()
)

# Operators that are no functions to be called by name: kernels of one backend, and those that take
# indices, sizes or memory without a look at them.
_REFUSED_OPERATORS = (
    "cudnn_ empty_quantized from_file miopen_ mkldnn_ quantized_ resize_ segment_reduce sparse_"
).split()

# Attributes of what is read from a tensor: of its device and dtype.
_DEVICE_ATTRIBUTES = ("type", "index")
_DTYPE_ATTRIBUTES = ("is_floating_point", "is_complex", "is_signed")


@dataclass(frozen=True, slots=True)
class Target:
    """What a function node runs, in the terms of torch.fx.

    Attributes:
        op: ``call_function``, ``call_method`` or ``attribute``.
        target: the function, or the name of the method or attribute.
    """

    op: Literal["call_function", "call_method", "attribute"]
    target: Function | str


class Targets:
    """Map the names of functions to what they stand for.

    Args:
        added: the names that plugins add; torch's own keep their meaning.
    """

    def __init__(self, added: Collection[str]) -> None:
        own = _by_name()
        # To subtract the keys would go along all of them.
        self._added = frozenset(name for name in added if name not in own)

    def target(self, name: str) -> Target | None:
        """Give what a name stands for; None if for nothing.

        Only a name that a plugin added leads to an import.

        Raises:
            BuildError: a plugin added the name, but the function cannot be had.
        """
        if name not in self._added:
            return _by_name().get(name) or _own_operation(name)
        function = _imported(name)
        return None if function is None else Target("call_function", function)


class Functions(Targets):
    """The functions that one converter knows, by name and the other way round.

    Attributes:
        loaded: the added functions whose modules have been imported, by name. A model that has not
            imported a function does not call it.
    """

    def __init__(self, added: Collection[str]) -> None:
        # While a model is captured, some of torch's functions are others than they are now.
        _names()
        super().__init__(added)
        found = {name: _found(name) for name in sorted(self._added)}
        self.loaded = {name: each for name, each in found.items() if each is not None}
        self._names = {
            each: name for name, function in self.loaded.items() for each in _forms(function)
        }

    @property
    def places(self) -> list[tuple[dict[str, Any], str]]:
        """The globals of Python modules, and names in them, that hold the loaded functions."""
        return places(tuple(self.loaded.values()))

    def name_of(self, function: Function) -> str | None:
        """The name of a function; None if it has none, and so cannot be a node."""
        name = _names().get(function) or self._names.get(function)
        if name is None and isinstance(function, OPERATIONS):
            name = f"torch.ops.{function}"
            return name if own_operation(name) is not None else None
        return name


def places(functions: tuple[Function, ...]) -> list[tuple[dict[str, Any], str]]:
    """The globals of Python modules, and names in them, that hold functions."""
    return _places(functions, len(sys.modules))


@functools.lru_cache(maxsize=8)
def _places(functions: tuple[Function, ...], _modules: int) -> list[tuple[dict[str, Any], str]]:
    """Where functions are to be found, among so many modules."""
    named = [(getattr(each, "__name__", ""), each) for each in functions]
    modules = [vars(each) for each in list(sys.modules.values()) if hasattr(each, "__dict__")]
    return [
        (members, name)
        for members in modules
        for name, function in named
        if members.get(name) is function
    ]


def _own_operation(name: str) -> Target | None:
    operation = own_operation(name)
    return None if operation is None else Target("call_function", operation)


def is_own(name: str) -> bool:
    """Whether a name stands for a function without any plugin."""
    return (_by_name().get(name) or own_operation(name)) is not None


def stable_name(function: Function) -> str | None:
    """The name that a pickle can hold a function by; None where Python's own has to do.

    Python's own is the place where the function was defined, and nothing may be found there.
    """
    if isinstance(function, OPERATIONS):
        return f"torch.ops.{function}"
    name = _names().get(function)
    target = None if name is None else _by_name()[name]
    return name if target and target.target is function else _imports.get(function)


def function_of(name: str) -> Function:
    """The function that :func:`stable_name` named.

    Raises:
        BuildError: it cannot be had.
    """
    target = _by_name().get(name)
    function: Any = None if target is None else target.target
    if name.startswith(OPS):
        function = registered(name)
    elif target is None:
        function = _imported(name)
    if not callable(function):
        raise BuildError(f"no function is named {name!r}; install what defines it")
    return function  # type: ignore[no-any-return]


_imports: dict[Function, str] = {}


def _imported(name: str) -> Function | None:
    """The function of a full name, which may need an import."""
    home = name.rpartition(".")[0]
    if name.startswith(OPS):
        function = _found(name)
        if function is None:
            raise BuildError(
                f"the operation {name!r} is not registered; import the package that registers it"
            )
        return function
    try:
        importlib.import_module(home)
    except Exception as error:
        raise BuildError(
            f"the function {name!r} cannot be had: {type(error).__name__}: "
            f"{first_line(error)}; install what defines {home}"
        ) from error
    function = _found(name)
    if function is not None and not isinstance(function, OPERATIONS):
        _imports[function] = name
    return function


def _found(name: str) -> Function | None:
    """The function of a full name, of a module that is imported; an operation if it stands for one.

    ``torch.library.custom_op`` makes an object that stands for an operation.
    """
    home, _, last = name.rpartition(".")
    function = getattr(sys.modules.get(home), last, None)
    if function is None and name.startswith(OPS):
        return registered(name)
    function = getattr(function, "_opoverload", function)
    return function if callable(function) else None


def _forms(function: Function) -> list[Function]:
    """All that code may call in order to call a function: an operation, or the packet with it."""
    if not isinstance(function, OPERATIONS):
        return [function]
    packet = getattr(function, "overloadpacket", function)
    forms = dict.fromkeys([function, *overloads(function), packet])
    return [each for each in forms if not changes_arguments(each)]


@functools.lru_cache(maxsize=4096)
def method_of(operation: Any) -> Function | None:
    """The method of tensors that is the same as an operation that gives no tensor, as ``size`` is.

    None if the operation gives tensors, or is none of torch's own.
    """
    namespace, _, name = str(operation).partition(".")
    name = name.partition(".")[0].removeprefix("sym_")
    if namespace != "aten" or method_name(name) is None or gives_tensors(operation):
        return None
    return getattr(torch.Tensor, name)  # type: ignore[no-any-return]


def method_name(name: str) -> str | None:
    """The function name of a tensor's method; None if there is no such method."""
    full = f"torch.Tensor.{name}"
    target = _by_name().get(full)
    return full if target is not None and target.op == "call_method" else None


def attribute_name(name: str) -> str | None:
    """The function name of an attribute of tensors and of what functions return; or None."""
    return _attributes().get(name)


@functools.cache
def _attributes() -> dict[str, str]:
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
def _by_name() -> dict[str, Target]:
    table = {full: Target("attribute", name) for name, full in _attributes().items()}
    listed = get_overridable_functions()
    operators = [f"__{name}__" for name in _operator_methods()]
    for name in _METHODS + operators + [each.__name__ for each in listed[torch.Tensor]]:
        usable = not name.startswith("_") or name.strip("_") in _operator_methods()
        if usable and name not in _REFUSED_METHODS and callable(getattr(torch.Tensor, name, None)):
            table[f"torch.Tensor.{name}"] = Target("call_method", name)
    for namespace in NAMESPACES:
        known = {*listed[namespace], *listed[torch.functional]}
        for name, member in vars(namespace).items():
            if name.startswith("_") or not callable(member) or isinstance(member, type):
                continue
            if is_refused(name):
                continue
            if member in known or _is_operator(member) or _offers_itself(member):
                table[f"{namespace.__name__}.{name}"] = Target("call_function", member)
    for name in (*FACTORIES, *_UNLISTED, *_STATE):
        table[f"torch.{name}"] = Target("call_function", getattr(torch, name))
    table |= {f"torch.{name}": Target("call_function", each) for name, each in _CHECKED.items()}
    table |= {
        f"torch.sparse.{name}": Target("call_function", getattr(torch.sparse, name))
        for name in _SPARSE
    }
    table |= {
        f"operator.{name}": Target("call_function", getattr(operator, name)) for name in _OPERATORS
    }
    table |= {f"math.{name}": Target("call_function", getattr(math, name)) for name in MATH}
    table |= {f"builtins.{each.__name__}": Target("call_function", each) for each in _BUILTINS}
    table |= {f"layergraph.{each.__name__}": Target("call_function", each) for each in _OWN}
    return table


def _operator_methods() -> frozenset[str]:
    names = {name.strip("_") for name in _OPERATORS} | {"div"}
    return frozenset(names | {f"r{name}" for name in names} | {"reversed"})


def _is_operator(function: Any) -> bool:
    """Return whether a function in C is one of torch's operators, and gives a tensor."""
    if type(function) is not types.BuiltinFunctionType:
        return False
    name = function.__name__
    if name.startswith(tuple(_REFUSED_OPERATORS)):
        return False
    return give_tensors(_operators(name))


def _operators(name: str) -> list[Any]:
    return torch._C._jit_get_schemas_for_operator(f"aten::{name}")


def _offers_itself(function: Any) -> bool:
    """Return whether a function in Python offers itself to function modes."""
    is_python = type(function) is types.FunctionType
    return is_python and not HANDING_OVER.isdisjoint(function.__code__.co_names)


HANDING_OVER = frozenset(
    {"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"}
)
"""Functions of torch in Python call these to offer themselves to function modes."""


@functools.cache
def _names() -> dict[Function, str]:
    names: dict[Function, str] = {}
    for full, target in _by_name().items():
        if target.op == "call_function":
            known = names.get(target.target)  # type: ignore[arg-type]
            if known is None or not _is_preferred(known, full):
                names[target.target] = full  # type: ignore[index]
        elif full.startswith("torch.Tensor."):
            member = getattr(torch.Tensor, str(target.target))
            names[member if target.op == "call_method" else member.__get__] = full
    names |= {getattr(torch, name): f"torch.{name}" for name in _CHECKED}
    return names


def _is_preferred(known: str, other: str) -> bool:
    """Return whether a function keeps its name: in one namespace, an operator's name wins."""
    (home, _, name), (other_home, _, other_name) = known.rpartition("."), other.rpartition(".")
    return home == other_home and bool(_operators(name)) and not _operators(other_name)
