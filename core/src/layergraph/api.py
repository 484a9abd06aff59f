"""The two conversions, each in one call."""

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
    from layergraph.capturing import Modes, Values


def to_ir(
    model: nn.Module,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Values = "refuse",
    modes: Modes = "both",
) -> Ir:
    """Turn a model into its IR, by the handlers of the installed plugins.

    With example inputs, the model runs once and each call in it is recorded. Sizes of inputs may
    differ when the rebuilt model runs; numbers of dimensions and dtypes that the code asks for may
    not. Without inputs, the model is traced on symbols, which serves models whose code does not
    look at its inputs.

    To register handlers for one use, make a converter: :class:`layergraph.torch2ir.Torch2Ir`.

    Args:
        model: the model, in training or evaluation mode. It is left as it was.
        args: the positional arguments of an example call, as a tuple; a single tensor is given as
            ``(x,)``.
        kwargs: the arguments of that call by name. What is not a tensor is fixed at the value that
            it has here, as is what is left at its default.
        values: what to do where the code decides by a number in a tensor, as ``if x.sum() > 0``
            does: ``"refuse"`` raises; ``"assume"`` takes it to be the same for all inputs, which
            the rebuilt model checks.
        modes: what the IR holds where the code asks whether it is training: ``"both"`` modes, or
            the model's ``"own"``, to which the rebuilt model is then held. The latter is quicker.

    Returns:
        The IR: layers, their attributes and wiring, shapes and dtypes. The parameters and
        persistent buffers are in ``model.state_dict()``.

    Raises:
        CaptureError: the model does something that a graph cannot hold, or decides by what only
            inputs would tell. The message names module, line and remedy;
            :func:`layergraph.preflight` lists all that stands in the way.
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
    return default_torch2ir().convert(model, args, kwargs, values=values, modes=modes)


def to_torch(
    ir: Ir | Mapping[str, Mapping[str, Any]],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    device: torch.device | str | int | None = None,
) -> nn.Module:
    """Build the model that an IR describes, by the handlers of the installed plugins.

    To register handlers for one use, make a converter: :class:`layergraph.ir2torch.Ir2Torch`.

    Args:
        ir: the IR, or its dict form.
        state_dict: the weights, under the keys of the original model; they are copied. Of a tensor
            with several keys, one is enough. None: the constructors of the layers initialise the
            weights that they make, all others are zero.
        device: where parameters and buffers are placed; None for torch's default. On ``"meta"``
            they take no memory; such a model gets its weights by its own
            ``load_state_dict(…, assign=True)``.

    Returns:
        A module with the original's layers in the original's hierarchy, whose ``state_dict()`` has
        the original's keys. Layers that a handler knows are of their own classes; all others are a
        :class:`torch.fx.GraphModule`. It is in the mode that the original was in.

    Raises:
        InvalidIrError: the IR breaks a rule; ``.problems`` lists all of them.
        BuildError: a type has no handler, a handler refused the attributes, or there is no such
            device.
        PluginError: a handler broke its contract.
        StateError: the state dict lacks tensors, has others, or has them in other shapes.

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


# Nothing is registered on these, so that one of each is enough.


@functools.cache
def default_torch2ir() -> Torch2Ir:
    """The converter of :func:`to_ir`."""
    return Torch2Ir()


@functools.cache
def default_ir2torch() -> Ir2Torch:
    """The converter of :func:`to_torch`."""
    return Ir2Torch()
