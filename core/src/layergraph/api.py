"""``to_ir`` and ``to_torch``: the two conversions with the installed plugins."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.ir import Ir
from layergraph.ir2torch import Ir2Torch
from layergraph.torch2ir import Torch2Ir

if TYPE_CHECKING:
    from layergraph.capturing import Example, Modes, Values


def to_ir(
    model: nn.Module,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    examples: Sequence[Example] | None = None,
    values: Values = "both",
    modes: Modes = "both",
) -> Ir:
    """Turn a model into its IR, with the handlers of the installed plugins.

    With example inputs, ``to_ir`` runs the model and records each call. The rebuilt model accepts
    inputs of other sizes. It checks ranks and dtypes, if the code depends on them. Without example
    inputs, ``to_ir`` traces the model on symbols, which works if the code does not depend on its
    inputs.

    To register handlers for one use, make a converter: :class:`layergraph.torch2ir.Torch2Ir`.

    Args:
        model: the model, in training or evaluation mode. ``to_ir`` leaves it as it was.
        args: the positional arguments of an example call, as a tuple; for one tensor, ``(x,)``.
        kwargs: the arguments of that call by name. The rebuilt model takes other tensors and other
            numbers. Other arguments, such as texts and booleans, are fixed at their values here,
            and an argument that is left out is fixed at its default.
        examples: several calls, each a pair of ``args`` and ``kwargs``, instead of these two. The
            IR serves all of them: a mask that is given or None, inputs of another form, sizes on
            which the code branches. The ways of the calls share equal nodes and layers.
        values: the treatment of code that depends on a number in a tensor, such as
            ``if x.sum() > 0``. ``"both"`` captures both ways: the model runs again with the other
            answer, at most seven times, or once for each of 24 decisions. A way that the model
            raises on, that a graph cannot hold, or that is one too many becomes a guard, and so
            does a number that Python needs. ``"assume"`` captures the way of the example alone,
            with a guard: the rebuilt model raises if an input gives another answer. ``"refuse"``
            raises a CaptureError.
        modes: the modes to capture if the code depends on ``self.training``: ``"both"``, or the
            model's ``"own"``. With ``"own"``, the capture is faster, and the rebuilt model raises
            in the other mode.

    Returns:
        The IR: layers, their attributes and graphs, shapes and dtypes. It holds no weights: save
        ``model.state_dict()`` with it.

    Raises:
        CaptureError: the model does something that a graph cannot hold, or depends on inputs that
            are missing. The message names module, line and remedy; :func:`layergraph.preflight`
            lists all such problems.
        PluginError: a handler failed, or broke its contract.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> ir = lg.to_ir(model, (torch.ones(1, 2),))
        >>> print(ir)
        root: sequential()
            input_1 = input
            _0 = linear 0(input_1)
            _1 = relu 1(_0)
            return _1
        0: linear(in_features=2, out_features=3, bias=True)
        1: relu()
    """
    return default_torch2ir().convert(
        model, args, kwargs, examples=examples, values=values, modes=modes
    )


def to_torch(
    ir: Ir | Mapping[str, Mapping[str, Any]],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    device: torch.device | str | int | None = None,
) -> nn.Module:
    """Build the model that an IR describes, with the handlers of the installed plugins.

    To register handlers for one use, make a converter: :class:`layergraph.ir2torch.Ir2Torch`.

    Args:
        ir: the IR, or its dict form.
        state_dict: the weights, under the keys of the original model. ``to_torch`` copies them. If
            a tensor has several keys, one of them is enough. None: the constructors of the layers
            initialise the weights that they make; all other weights are zero.
        device: the device of parameters and buffers; None: torch's default. On ``"meta"`` they take
            no memory, and a state dict is only checked. Such a model runs on meta inputs. Give it
            its weights with ``load_state_dict(…, assign=True)``, or with ``to_empty(…)`` and
            ``load_state_dict(…)``; this also restores constants and buffers that do not persist.

    Returns:
        A module with the layers and the hierarchy of the original, whose ``state_dict()`` has the
        keys of the original. A layer that a handler knows has its own class; each composite is a
        :class:`torch.fx.GraphModule`. The module is in the mode that the original was in.

    Raises:
        InvalidIrError: the IR breaks a rule; ``.problems`` lists the problems.
        BuildError: a type has no handler, a handler refused the attributes, or torch has no such
            device.
        PluginError: a handler broke its contract.
        StateError: the state dict lacks tensors, has unknown keys, or has other shapes.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> again = lg.to_torch(lg.to_ir(model), model.state_dict())
        >>> again
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): ReLU()
        )
        >>> x = torch.randn(5, 2)
        >>> torch.equal(again(x), model(x))
        True
    """
    return default_ir2torch().convert(ir, state_dict, device)


# One converter of each kind is enough, because no code registers handlers on it.


@functools.cache
def default_torch2ir() -> Torch2Ir:
    """Return the converter of :func:`to_ir`."""
    return Torch2Ir()


@functools.cache
def default_ir2torch() -> Ir2Torch:
    """Return the converter of :func:`to_torch`."""
    return Ir2Torch()
