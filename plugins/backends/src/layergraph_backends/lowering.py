"""``lower``: conversion of a whole model to a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import layergraph as lg
from layergraph.gc_pause import gc_paused
from layergraph.hook_types.lowerings import Lowering
from layergraph.ir import Ir, Node, Ref
from layergraph.ir.values import leaves
from layergraph.ir2torch.meta_model import MetaModel
from layergraph.ir2torch.wrapper_keys import under_plain_keys
from layergraph.tensors.kinds import refuse_packed
from layergraph_backends.backend import Backend
from layergraph_backends.errors import Lack, LoweringError
from layergraph_backends.frame import Frame, Model
from layergraph_backends.handlers import handlers_of
from layergraph_backends.inputs import Inputs
from layergraph_backends.plain import UNKNOWN
from layergraph_backends.unrolling import unrolled
from layergraph_shapes import meta_model


@dataclass(frozen=True)
class Lowered:
    """The result of a lowering.

    Attributes:
        value: the value of the target that the model returns, or values in its containers.
        meta: the description of the model's result; None without ``args``.
        guards: the guards of the rebuilt model that the target does not check, and the conditions
            on named sizes under which the shapes are valid. A back end shows these to its users.
        lacks: the steps that the target does not support. Empty unless ``refuse=False`` was given.
    """

    value: Any
    meta: Any = None
    guards: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()


@gc_paused()
def lower(
    ir: Ir,
    backend: Backend,
    state: Mapping[str, torch.Tensor] | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool = False,
    handlers: Iterable[Lowering] = (),
    refuse: bool = True,
) -> Lowered:
    """Convert a model to a target: ask a handler for each layer and function.

    The walk is in execution order. It computes known numbers itself, such as sizes if ``args`` are
    given. It unrolls loops with a known number of iterations, unpacks containers, and follows
    in-place changes, so that handlers see immutable values.

    Args:
        ir: the IR of the model.
        backend: the back end, which collects the values.
        state: the state dict; None: the constructors of the layers initialise the weights, which is
            enough to find unsupported steps.
        args: the positional arguments of a call, as for :func:`layergraph.shapes`: tensors, shapes,
            or shapes with names. None: shapes are not known.
        kwargs: the keyword arguments, in the same form.
        training: the mode.
        handlers: rows that come before those of the plugins.
        refuse: False: return the unsupported steps in ``.lacks`` instead of raising an error.

    Raises:
        LoweringError: the target lacks layers or functions; it lists all of them.
        ArgumentError: the arguments are not those that the model takes.
        InvalidIrError: the IR breaks a rule.
        StateError: the state dict does not fit.
        BuildError: a layer cannot be built, or a tensor consists of parts.
        PluginError: a third-party handler raised a foreign error.

    Example:
        >>> import torch, layergraph as lg
        >>> from dataclasses import dataclass
        >>> from layergraph_backends import Backend, lower
        >>> @dataclass(frozen=True)
        ... class Value:
        ...     text: str
        >>> class Text(Backend):
        ...     target = "text"
        ...     def input(self, name, meta):
        ...         return Value(name)
        >>> def lower_linear(step, backend):
        ...     return Value(f"{step.key('weight')} @ {step.args[0].text}")
        >>> rows = [lg.Lowering("text", lower_linear, layers=["linear"])]
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3)))
        >>> lower(ir, Text(), handlers=rows).value
        Value(text='0.weight @ input')
    """
    refuse_packed(ir, backend.target)
    one_mode = ir.in_mode(training=training)
    call = None if args is None else (tuple(args), dict(kwargs or {}))
    built = meta_model(one_mode, training=training)
    inputs = Inputs(built, backend, call)
    while backend.takes_turns and (flat := unrolled(one_mode, inputs.metas)) is not one_mode:
        one_mode = flat
        built = meta_model(one_mode, training=training)
        inputs = Inputs(built, backend, call)
    # Without a state dict, the constructors have to initialise the weights.
    module = lg.to_torch(one_mode).train(training) if state is None else _filled(built, state)
    model = Model(one_mode, module, backend, handlers_of(backend.target, handlers), inputs.metas)
    value = _value(model, one_mode, inputs)
    lacks = model.lacks
    if refuse and lacks:
        raise LoweringError(backend.target, lacks)
    is_known = all(leaf is not UNKNOWN for leaf in leaves(value))
    guards = (*model.guards, *inputs.conditions)
    return Lowered(value if is_known else None, inputs.output, guards, lacks)


def _filled(built: MetaModel, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return a model with the tensors of the state dict themselves."""
    wanted = {key: tensor for key, tensor, _ in built.listed}
    plain = under_plain_keys(built.listed, state)
    if isinstance(plain, Mapping):
        plain = {key: _cast(plain[key], wanted.get(key)) for key in plain}
    with torch.inference_mode(False):
        return built.fill(plain, torch.device("cpu"))


def _cast(given: Any, wanted: torch.Tensor | None) -> Any:
    """Return a tensor in the dtype of the model, as a copy into the model would have it."""
    if not isinstance(given, torch.Tensor) or wanted is None or given.is_complex():
        return given
    return given.to(wanted.dtype)


def _value(model: Model, ir: Ir, inputs: Inputs) -> Any:
    root = ir[ir.root]
    if root.nodes:
        return Frame(model, root.name, ()).run(inputs.values())
    args = inputs.of_a_leaf()
    node = Node(root.name, root.type, root.name, tuple(map(Ref, args)))
    return Frame(model, root.name, ()).alone(node, args)
