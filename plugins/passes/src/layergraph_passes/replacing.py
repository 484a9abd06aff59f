"""Replacement of layers by type."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from layergraph_rewrite import Call, EditError, layer
from layergraph_rewrite.terms import Layer

if TYPE_CHECKING:
    from layergraph_rewrite import Edit

Factory = Callable[[Call], Any]


def replace_layers(type: str, factory: Factory) -> Callable[[Edit], None]:  # noqa: A002
    """Return a pass that replaces all layers of a type.

    Args:
        type: the type; ``*`` stands for any characters.
        factory: a function that takes a :class:`layergraph_rewrite.Call` of each layer. It returns
            a layer, which takes the place and the name of the old one for all its calls; a call of
            layers and functions, as ``function("operator.add")(…)``, which replaces the call; or
            None to keep the layer. Tensors without a replacement stay if they fit.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_passes.replacing import replace_layers
        >>> from layergraph_rewrite import layer
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> to_silu = replace_layers("relu", lambda call: layer("silu"))
        >>> ir, state, _ = lg.run_passes(lg.to_ir(model), [to_silu], model.state_dict())
        >>> ir["1"].type
        'silu'
    """

    def replace_layers(edit: Edit) -> None:
        _replace(edit, type, factory)

    return replace_layers


def replace_type(edit: Edit, *, type: str, by: str) -> None:  # noqa: A002 the word of the IR
    """Replace the type of layers. They keep their attributes and tensors.

    From Python, :func:`layergraph_passes.replacing.replace_layers` takes a factory.

    Args:
        edit: the edit.
        type: the type; ``*`` stands for any characters.
        by: the new type, whose constructor takes the same attributes.
    """
    _replace(edit, type, lambda call: layer(by, **call.attributes))


def _replace(edit: Edit, kind: str, factory: Factory) -> None:
    names = [
        each.name
        for each in list(edit.layers.values())
        if each.children is None and each.calls and fnmatchcase(each.type, kind)
    ]
    for name in names:
        calls = edit.calls(name)
        term = factory(calls[0])
        if term is None:
            continue
        if isinstance(term, Layer):
            if term.types[0] == "*":
                raise EditError(f"the factory gave a layer without a type for {name!r}")
            edit.set(name, term.types[0], tensors=term.tensors, **term.attributes)
        else:
            for call in calls:
                edit.replace(call, term if call == calls[0] else factory(call))
        edit.report.add(calls[0], f"{name!r} replaced")
