"""The pass that brings each operation into a canonical form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from layergraph.ir import INPUT, Node, Ref, Value
from layergraph_passes.modes import nodes_of
from layergraph_passes.table import METHOD, F
from layergraph_rewrite import Site, function

if TYPE_CHECKING:
    from layergraph_rewrite import Call, Edit


class Spelling(NamedTuple):
    """The canonical name of an operation and its parameters after the first one, with defaults."""

    name: str
    parameters: tuple[str, ...] = ()
    defaults: Mapping[str, Value] = MappingProxyType({})
    packs: bool = False


# The operation of torch, its parameters after the first one, and their defaults. A star marks
# sizes or dimensions that a method takes one by one.
_OPERATIONS = """
relu; sigmoid; tanh; exp; log; sqrt; rsqrt; abs; sin; cos; erf; floor; ceil; round; isnan; relu_
mean sum: dim=None keepdim=False dtype=None
amax amin: dim=() keepdim=False
argmax argmin: dim=None keepdim=False
cumsum: dim dtype=None
softmax log_softmax: dim dtype=None
flatten: start_dim=0 end_dim=-1
unsqueeze: dim
transpose: dim0 dim1
permute: *dims
reshape: *shape
matmul: other; mm bmm: mat2
clamp: min=None max=None
cat stack: dim=0
chunk: chunks dim=0
"""

_ALIASES = {
    "torch.concat": "torch.cat",
    "torch.concatenate": "torch.cat",
    "torch.swapaxes": "torch.transpose",
    "torch.Tensor.swapaxes": "torch.transpose",
    "torch.absolute": "torch.abs",
    "torch.clip": "torch.clamp",
    "torch.Tensor.clip": "torch.clamp",
    "torch.special.expit": "torch.sigmoid",
    "torch.Tensor.__matmul__": "torch.matmul",
    "operator.matmul": "torch.matmul",
    F + "sigmoid": "torch.sigmoid",
    F + "tanh": "torch.tanh",
    F + "relu_": "torch.relu_",
}

# Binary operators, by the equivalent functions. Their second argument is named other.
_OPERATORS = {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv"}
_BINARY = {
    spelling: f"operator.{operator}"
    for name, operator in _OPERATORS.items()
    for spelling in (f"torch.{name}", METHOD + name, f"{METHOD}__{operator}__")
} | {"torch.subtract": "operator.sub", "torch.multiply": "operator.mul"}
_BINARY |= {"torch.divide": "operator.truediv", "torch.true_divide": "operator.truediv"}
_BINARY_NAMES = {*_BINARY.values()}
_REFLECTED = {f"{METHOD}__r{name}__": f"operator.{name}" for name in _OPERATORS.values()}
_UNARY = {"torch.neg", "torch.negative", METHOD + "neg", METHOD + "negative", METHOD + "__neg__"}


def _spellings() -> dict[str, Spelling]:
    found: dict[str, Spelling] = {}
    for entry in _OPERATIONS.replace("\n", ";").split(";"):
        names, _, listed = entry.partition(":")
        parameters: list[str] = []
        defaults: dict[str, Value] = {}
        for each in listed.split():
            name, is_optional, default = each.partition("=")
            parameters.append(name.lstrip("*"))
            if is_optional:
                defaults[parameters[-1]] = _DEFAULTS[default]
        for name in names.split():
            row = Spelling(f"torch.{name}", tuple(parameters), defaults, "*" in listed)
            found[f"torch.{name}"] = row
            if name not in ("cat", "stack"):
                found[METHOD + name] = row
    for alias, name in _ALIASES.items():
        found[alias] = found[name]
    return found


_DEFAULTS: dict[str, Value] = {"None": None, "False": False, "0": 0, "-1": -1, "()": ()}
_SPELLINGS = _spellings()
_FUNCTIONAL = {"relu", "softmax", "log_softmax"}


def canonicalize(edit: Edit) -> None:
    """Bring equivalent spellings of an operation into one form.

    ``x.mean(1)`` and ``torch.mean(x, 1, False)`` become ``torch.mean(x, dim=1)``: the first
    argument by position, the others by name, defaults left out. ``torch.add(x, y)`` and
    ``x.add(y)`` become ``operator.add(x, y)``; ``F.relu(x)`` and ``x.relu()`` become
    ``torch.relu(x)``. The new model computes the same, to the bit. Layers stay:
    ``functional-to-layers`` makes layers of functions.
    """
    known: set[Site] = set()
    for call in list(edit):
        if _is_tensor(call, Ref(call.site.node), known) or (
            (call.function or "") in _BINARY_NAMES
            and any(_is_tensor(call, each, known) for each in call.args)
        ):
            known.add(call.site)
        if call.function is None:
            continue
        forms = [_form(call, node, known) for node in nodes_of(call)]
        form, node = forms[0], nodes_of(call)[0]
        if form is None or any(repr(each) != repr(form) for each in forms):
            continue
        name, args, kwargs = form
        if (name, args, kwargs) == (call.function, node.args, dict(node.kwargs)):
            continue
        before, wish = call.function, call.site.node
        made = edit.replace(call, function(name)(*args, **kwargs))
        if call.site in known:
            known.add(made.site)
        edit.report.add(made, f"{wish}: {before} became {name}")


Form = tuple[str, tuple[Value, ...], dict[str, Value]]


def _form(call: Call, node: Node, known: set[Site]) -> Form | None:
    """Return the canonical function and arguments of a node; None if it stays as it is."""
    name, args = node.implementation, node.args or ()
    if name in _BINARY and len(args) == 2 and not node.kwargs:
        is_tensor = name.startswith(METHOD) or any(_is_tensor(call, each, known) for each in args)
        return (_BINARY[name], args, {}) if is_tensor else None
    if name in _REFLECTED and len(args) == 2 and not node.kwargs:
        return _REFLECTED[name], args[::-1], {}
    if name in _UNARY and len(args) == 1 and not node.kwargs:
        return "operator.neg", args, {}
    if name in _SPELLINGS and args:
        return _bound(_SPELLINGS[name], args, node.kwargs)
    return _functional(name, args, node.kwargs) if name.startswith(F) and args else None


def _bound(row: Spelling, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Form | None:
    rest = args[1:]
    if row.packs and rest:
        packed = rest[0] if len(rest) == 1 and type(rest[0]) in (tuple, list) else rest
        if len(rest) == 1 and type(rest[0]) is Ref:
            return None  # one size, or all of them in a tuple
        rest = (tuple(packed),)
    given = dict(zip(row.parameters, rest, strict=False))
    if len(rest) > len(row.parameters) or given.keys() & kwargs.keys():
        return None
    given |= kwargs
    if given.keys() - {*row.parameters} or {*row.parameters} - given.keys() - row.defaults.keys():
        return None
    return row.name, args[:1], _without_defaults(row, given)


def _without_defaults(row: Spelling, given: dict[str, Value]) -> dict[str, Value]:
    return {
        name: given[name]
        for name in row.parameters
        if name in given
        and not (name in row.defaults and repr(given[name]) == repr(row.defaults[name]))
    }


def _functional(name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Form | None:
    """Return the form of a function of torch.nn.functional, from its signature in Python."""
    import torch

    last = name.removeprefix(F)
    target: Any = getattr(torch.nn.functional, last, None)
    try:
        signature = inspect.signature(target)
        bound = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return None
    first = parameters[0].name
    given = {
        each.name: bound[each.name]
        for each in parameters[1:]
        if each.name in bound and repr(bound[each.name]) != repr(each.default)
    }
    if last in _FUNCTIONAL:
        row = _SPELLINGS[f"torch.{last}"]
        if given.pop("inplace", False) is True:
            return "torch.relu_", (bound[first],), given
        given.pop("_stacklevel", None)
        if not given.keys() - {*row.parameters} and {*row.parameters} - row.defaults.keys() <= (
            given.keys()
        ):
            return row.name, (bound[first],), given
        return None
    return name, (bound[first],), given


def _is_tensor(call: Call, value: Value, known: set[Site]) -> bool:
    """Return whether a value is known to be a tensor, and no number."""
    if type(value) is not Ref:
        return False
    if Site(call.site.graph, value.node) in known:
        return True
    graph, _ = call.spot
    node = graph.nodes[value.node]
    if node.type == INPUT:
        return call.is_in_root  # only tensors are inputs of a model
    if node.is_call:
        return not graph.layer_of(node).graphs
    name = node.implementation
    return (
        name in _BINARY.keys() | _REFLECTED.keys()
        or (name in _SPELLINGS and _SPELLINGS[name].name != "torch.chunk")
        or name.startswith(F)
    )
