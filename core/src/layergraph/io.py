"""``save`` and ``load``: they find the format of a suffix through the hook ``formats``.

The core has no format. ``layergraph-files`` has ``.safetensors`` and ``.json``.
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

    With ``layergraph-files``, a ``.json`` file holds the structure as text. A ``.safetensors`` file
    holds the structure and the weights; any reader of that format finds the weights under the keys
    of the state dict.

    Args:
        ir: the structure.
        path: the file to write. Its suffix names the format; :func:`installed_formats` lists them.
        state_dict: the weights, under the keys of the original model. None: the file holds no
            weights.
        options: more arguments of the format. ``.safetensors`` takes ``max_shard_size``: the
            maximum size of the tensors in one file, in bytes (``5_000_000_000``) or as text
            (``"5GB"``). ``save`` writes a larger model to several files and an index.

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
        options: more arguments of the format. The formats of ``layergraph-files`` take ``limits``,
            the :class:`layergraph.Limits` for this file.

    Returns:
        The IR, which keeps the rules of :func:`layergraph.ir.check`.

    Raises:
        ArgumentError: the path is not a path, or the format has no such option.
        FileError: no installed package reads that suffix, or the file cannot be read or does not
            have the form of its format.
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

    On the CPU, ``load_model`` maps a ``.safetensors`` file into memory. The system reads the
    weights when the model uses them, and writes no change of them back to the file. No program may
    write into the file meanwhile; :func:`save` replaces the file, which is safe. ``load_model``
    copies a tensor whose place in the file does not have torch's alignment, because kernels may
    round differently by alignment.

    Args:
        path: as for :func:`load`. A ``.json`` file holds no weights.
        device: the device of the parameters and buffers; None: torch's default.
        dtype: the dtype of the floating-point parameters and buffers; None keeps their dtypes.
            Constants keep their dtype, as in ``model.to(dtype)``.
        options: as for :func:`load`.

    Returns:
        The model, as :func:`layergraph.to_torch` gives it.

    Raises:
        ArgumentError: the path is not a path, or the format has no such option.
        FileError: the file cannot be read, does not have the form of its format, exceeds a limit,
            or needs a plugin that is not installed.
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
    """Return the formats of the installed plugins, by suffix.

    If two plugins have a format for one suffix, the plugin that is asked first wins: see
    :mod:`layergraph.plugins`.

    Returns:
        A new dict.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its formats are skipped.

    Example:
        >>> from layergraph.io import installed_formats
        >>> sorted(installed_formats())
        ['', '.json', '.safetensors', '.safetensors.index.json']
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
        options: the arguments by name. The function may not take all of them.

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
