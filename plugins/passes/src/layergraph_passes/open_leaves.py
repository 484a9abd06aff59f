"""The pass that opens leaves: layers of torch that consist of others."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from layergraph.ir import Ref, Symbol, Value, refs
from layergraph_passes.modes import nodes_of
from layergraph_rewrite import Call, EditError, Site
from layergraph_rewrite.sources import Source, Tensors

if TYPE_CHECKING:
    import torch

    from layergraph.ir import Ir, Node, TensorSpec
    from layergraph_passes.opened import Opened
    from layergraph_rewrite import Edit

_RECURRENT = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
_CLASSES = {
    "multiheadattention": "MultiheadAttention",
    "transformerencoderlayer": "TransformerEncoderLayer",
    "transformerdecoderlayer": "TransformerDecoderLayer",
    "transformerencoder": "TransformerEncoder",
    "transformerdecoder": "TransformerDecoder",
    "transformer": "Transformer",
    **_RECURRENT,
}


def open_leaves(
    edit: Edit,
    *,
    types: str | Sequence[str] = "*",
    length: int | None = None,
    cells: bool = False,
    masks: str | None = None,
) -> None:
    """Replace attention, transformer and recurrent layers by composites of primitive layers.

    It knows ``multiheadattention``, ``transformerencoderlayer`` and ``transformerdecoderlayer``;
    ``transformerencoder``, ``transformerdecoder`` and ``transformer``, with the layers in them; and
    ``rnn``, ``gru`` and ``lstm``. The composites are made of linear layers, layer norm, softmax,
    dropout, activations and functions. The new model computes the same within 1e-6 in evaluation
    mode, and in training mode if dropout is 0. Its inputs must have a batch dimension.

    The keys of attention become ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``, each with
    ``weight`` and ``bias``; the other keys of a transformer layer stay. Of a recurrent layer,
    ``weight_ih_l0`` becomes ``ih_l0.weight``, or ``cell_l0.weight_ih`` with cells.

    A layer stays, with the reason in the report, if its calls have different arguments, or if the
    length or the kind of a mask is unknown.

    Args:
        edit: the edit.
        types: the types to open; ``*`` stands for any characters. Several as a list, or as one text
            with commas.
        length: the number of steps of recurrent layers; None: the one from
            :func:`layergraph.annotate_shapes`. The new model refuses other lengths.
        cells: whether the steps of a recurrent layer call a cell, as ``lstmcell``, instead of
            linear layers.
        masks: ``"bool"`` or ``"float"``, the kind of the masks; None: the one from
            :func:`layergraph.annotate_shapes`.
    """
    if masks not in (None, "bool", "float"):
        raise EditError(f'masks={masks!r} is neither "bool" nor "float"')
    wanted = [each.strip() for each in types.split(",")] if isinstance(types, str) else types
    for name, layer in list(edit.layers.items()):
        kind = layer.type
        if kind not in _CLASSES or not any(fnmatchcase(kind, each) for each in wanted):
            continue
        calls = edit.calls(name)
        site = calls[0] if calls else Site(name, name)
        try:
            _open(edit, name, calls, _Options(length, cells, masks))
        except (_Stays, EditError) as error:
            edit.report.refuse(site, str(error))
        else:
            edit.report.add(site, f"{name!r}, a {kind}, opened")


class _Options(NamedTuple):
    length: int | None
    cells: bool
    masks: str | None


class _Stays(Exception):  # noqa: N818 it is no error, but an answer
    """A layer stays as it is; the message is the reason."""


class _Given(NamedTuple):
    """The arguments of a call: the tensors and their kinds by name, and the rest."""

    tensors: dict[str, Value]
    kinds: dict[str, str]
    constants: dict[str, Value]


def _open(edit: Edit, name: str, calls: list[Call], options: _Options) -> None:
    from layergraph_passes.opened import NotOpenedError

    if not calls:
        raise _Stays("no node calls it; if it is the model itself, put it into another module")
    layer = edit.layers[name]
    given = [_given(call, node, layer.type, options) for call in calls for node in nodes_of(call)]
    first = given[0]
    if any(repr(each[1:]) != repr(first[1:]) for each in given):
        raise _Stays("its calls give other arguments each")
    values = [
        [_given(call, node, layer.type, options) for node in nodes_of(call)] for call in calls
    ]
    if any(repr(one) != repr(each) for one, *more in values for each in more):
        raise _Stays("the graphs for training and evaluation differ here")
    try:
        made = _maker(layer.type, calls[0], options)(layer.attributes, first.kinds, first.constants)
    except NotOpenedError as error:
        raise _Stays(str(error)) from None
    ir = _ir(made, layer.tensors)
    edit.open(name, ir, _tensors(made, edit.tensors(name)) if edit.has_state else None)
    for call, (one, *_) in zip(calls, values, strict=True):
        edit.set_arguments(call, *one.tensors.values())


def _maker(kind: str, call: Call, options: _Options) -> Callable[..., Opened]:
    from layergraph_passes import opened_attention, opened_recurrent, opened_stacks

    if kind in _RECURRENT:
        length = options.length if options.length is not None else _length(call)
        made: Callable[..., Opened] = opened_recurrent.recurrent(
            kind, length, of_cells=options.cells
        )
        return made
    return {
        "multiheadattention": opened_attention.attention,
        "transformerencoderlayer": opened_attention.encoder_layer,
        "transformerdecoderlayer": opened_attention.decoder_layer,
        "transformerencoder": opened_stacks.encoder,
        "transformerdecoder": opened_stacks.decoder,
        "transformer": opened_stacks.transformer,
    }[kind]


def _given(call: Call, node: Node, kind: str, options: _Options) -> _Given:
    """Return the arguments of a call by the names of the parameters."""
    import torch

    signature = inspect.signature(getattr(torch.nn, _CLASSES[kind]).forward)
    try:
        bound = signature.bind(None, *(node.args or ()), **node.kwargs)
    except TypeError as error:
        raise _Stays(f"its arguments do not fit: {error}") from None
    bound.apply_defaults()
    found = _Given({}, {}, {})
    for name, value in list(bound.arguments.items())[1:]:
        if name == "hx" and type(value) is tuple and len(value) == 2:
            found.tensors.update({"h_0": value[0], "c_0": value[1]})
            found.kinds.update({"h_0": "float", "c_0": "float"})
        elif type(value) is Ref:
            found.tensors[name] = value
            found.kinds[name] = (
                _mask_kind(call, node, value, options) if "mask" in name else "float"
            )
        elif refs(value):
            raise _Stays(f"it is called with values inside of {name!r}")
        else:
            found.constants[name] = value
    return found


def _mask_kind(call: Call, node: Node, value: Ref, options: _Options) -> str:
    if options.masks is not None:
        return options.masks
    noted = call.spot[0].edge_data(value.node, node.name).get("layergraph.dtype")
    if type(noted) is not Symbol:
        raise _Stays(
            f"the kind of the mask {value.node!r} is unknown: give masks=, or annotate shapes"
        )
    return "bool" if noted.name == "torch.bool" else "float"


def _length(call: Call) -> int:
    """Return the number of steps that the annotation of the input states."""
    value = call.args[0] if call.args else call.kwargs.get("input")
    noted = None
    if type(value) is Ref:
        noted = call.spot[0].edge_data(value.node, call.site.node).get("layergraph.shape")
    index = 1 if call.attributes.get("batch_first") else 0
    length = noted[index] if type(noted) is tuple and len(noted) == 3 else None
    if type(length) is not int:
        raise _Stays("its length is unknown: give length=, or annotate shapes")
    return length


def _ir(made: Opened, specs: Mapping[str, TensorSpec]) -> Ir:
    """Return the IR of an opened leaf, with tensor specs copied from the leaf."""
    import torch

    import layergraph as lg

    made.to("meta")
    for key, tensor in made.state_dict(keep_vars=True).items():
        spec = specs.get(made.origin(key)[0])
        if spec is not None and spec.dtype is not None:
            tensor.data = tensor.data.to(getattr(torch, spec.dtype))
        if spec is not None and spec.requires_grad is False:
            tensor.requires_grad_(False)
    return lg.to_ir(made)


def _tensors(made: Opened, held: Tensors) -> Tensors:
    """Return the tensors of an opened leaf: slices of the leaf's tensors, read lazily."""
    sources = {}
    for key in made.state_dict():
        old, rows = made.origin(key)
        sources[key] = Source(functools.partial(_part, held, old, rows), keeps=rows is not None)
    return Tensors(sources)


def _part(held: Tensors, key: str, rows: slice | None) -> torch.Tensor:
    tensor = held[key]
    return tensor if rows is None else tensor[rows].clone()
