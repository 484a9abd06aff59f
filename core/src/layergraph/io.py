"""Saving and loading: the plugin that has the format of a suffix does the work.

No format is built in; ``layergraph-files`` has ``.safetensors`` and ``.json``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from layergraph.errors import ArgumentError, FileError
from layergraph.formats import Format
from layergraph.ir import Ir
from layergraph.plugins.listing import installed_answers

if TYPE_CHECKING:
    import torch
    from torch import nn

PathName = str | PathLike[str]


def save(
    ir: Ir,
    path: PathName,
    state_dict: Mapping[str, torch.Tensor] | None = None,
    **options: Any,
) -> None:
    """Write a model to a file, in the format of its suffix: all of it, or nothing.

    With ``layergraph-files``, ``.json`` is the structure as a text for people; ``.safetensors`` is
    the structure and the weights, and any reader of that format finds the weights under the keys of
    the state dict.

    Args:
        ir: the structure.
        path: where to write. The suffix names the format; :func:`installed_formats` lists them.
        state_dict: the weights, under the keys of the original model. None: the file holds no
            weights.
        options: what the format takes besides. ``.safetensors`` takes ``max_shard_size``: the most
            bytes of tensors for one file, as a number or as ``"5GB"``; a larger model is written
            to several files and an index.

    Raises:
        ArgumentError: the arguments are in another order, or the format has no such option.
        InvalidIrError: the IR breaks a rule.
        BuildError: a layer cannot be built, so that its weights cannot be checked.
        StateError: the weights do not fit.
        FileError: no installed package writes that suffix, or the file cannot be written.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Linear(2, 3)
        >>> lg.save(lg.to_ir(model), "model.safetensors", model.state_dict())
        >>> lg.load_model("model.safetensors")
        Linear(in_features=2, out_features=3, bias=True)
    """
    _call("write", path, (ir, path, state_dict), options)


def load(path: PathName, **options: Any) -> Ir:
    """Read the structure of a model from a file. Its weights are not read.

    Args:
        path: a file that :func:`save` wrote. For ``.safetensors`` also the index of several files,
            or a folder that holds a file named ``model``.
        options: what the format takes besides. Those of ``layergraph-files`` take ``limits``: the
            :class:`layergraph.Limits` on what the file may make layergraph do.

    Returns:
        The IR, which keeps the rules of :func:`layergraph.ir.check`.

    Raises:
        ArgumentError: the path is not a path, or the format has no such option.
        FileError: no installed package reads that suffix, or the file cannot be read or is of
            another form.
        InvalidIrError: the file describes an IR that breaks a rule.

    Example:
        >>> import torch, layergraph as lg
        >>> lg.save(lg.to_ir(torch.nn.Linear(2, 3)), "model.json")
        >>> print(lg.load("model.json"))
        root: linear(in_features=2, out_features=3, bias=True)
    """
    ir: Ir = _call("read", path, (path,), options)
    return ir


def load_model(
    path: PathName,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model from a file that holds its structure and its weights.

    From ``.safetensors`` and on the CPU, the weights are the file itself, mapped into memory: the
    system reads them when they are used, and a change of them is not written back. No program may
    write into the file meanwhile; :func:`save` replaces it, which is safe. Tensors that do not
    begin in the file where torch lets tensors begin in memory are copied, because kernels may round
    differently there.

    Args:
        path: as for :func:`load`. A ``.json`` file holds no weights.
        device: where the parameters and buffers are placed; None for torch's default.
        dtype: the dtype for those of them that are floating; None leaves them as they were.
            Constants that the original did not register stay as they were, as they do in
            ``model.to(dtype)``.
        options: as for :func:`load`.

    Returns:
        The model, as :func:`layergraph.to_torch` gives it.

    Raises:
        ArgumentError: the path is not a path, or the format has no such option.
        FileError: the file cannot be read, is of another form, goes beyond a limit, or needs a
            plugin that is not installed.
        InvalidIrError: the file describes an IR that breaks a rule.
        BuildError: a layer has no handler, or cannot be made.
        StateError: the weights do not fit the structure.
        PluginError: a handler broke its contract.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Linear(2, 3)
        >>> lg.save(lg.to_ir(model), "model.safetensors", model.state_dict())
        >>> again = lg.load_model("model.safetensors")
        >>> torch.equal(again.weight, model.weight)
        True
    """
    model: nn.Module = _call("build", path, (path,), {"device": device, "dtype": dtype, **options})
    return model


def installed_formats() -> dict[str, Format]:
    """The formats of the installed plugins, by suffix.

    Of two plugins with a format for one suffix, the plugin that is asked first has it: see
    :mod:`layergraph.plugins`.

    Returns:
        A new dict.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its formats are skipped.

    Example:
        >>> from layergraph.io import installed_formats
        >>> sorted(installed_formats())
        ['', '.json', '.safetensors']
    """
    found: dict[str, Format] = {}
    for _, each in installed_answers("formats"):
        found.setdefault(each.suffix, each)
    return found


_DONE_BY = {"write": "writes", "read": "reads", "build": "builds a model from"}


def _call(role: str, path: object, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call the function of a format that a path needs.

    Args:
        role: the attribute of :class:`Format`.
        path: the path.
        args: the arguments by position.
        options: the arguments by name, which the function may not know.

    Raises:
        FileError: no installed package has such a format.
        ArgumentError: the function has no such option.
    """
    text = os.fspath(path) if isinstance(path, str | PathLike) else ""
    name = text.rpartition(os.sep)[2].lower() if isinstance(text, str) else ""
    known = installed_formats()
    suffix = max((each for each in known if name.endswith(each)), key=len, default=None)
    function = None if suffix is None else getattr(known[suffix], role)
    if suffix is None or function is None:
        listed = ", ".join(sorted(each for each in known if each and getattr(known[each], role)))
        reason = f"{text!r}: no installed package {_DONE_BY[role]} files"
        if listed:
            raise FileError(f"{reason} of that suffix; give one of {listed}")
        raise FileError(f"{reason}; pip install layergraph-files")
    taken = inspect.signature(function).parameters
    unknown = sorted(options.keys() - taken.keys())
    if unknown:
        offered = [each.name for each in taken.values() if each.kind is each.KEYWORD_ONLY]
        raise ArgumentError(
            f"{unknown[0]!r} is not an option for {suffix or 'this path'}; it takes "
            f"{', '.join(offered) or 'none'}"
        )
    return function(*args, **options)
