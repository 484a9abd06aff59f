"""``lg.save`` and ``lg.load``: they find the format of a suffix through the hook ``formats``.

The formats of this package are ``.safetensors`` and ``.json``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from layergraph.errors import ArgumentError, FileError, LayergraphError, PluginError, first_line
from layergraph.hook_types.formats import Format
from layergraph.ir import Ir
from layergraph.plugins import Plugin, installed_answers
from layergraph.plugins.loading import way_to_get

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
            weights. If one of them is a DTensor, all processes call ``save``, and with
            ``layergraph-distributed`` each writes the parts that it holds.
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
    if not isinstance(ir, Ir):
        raise ArgumentError(
            f"a {type(ir).__name__} stands where the Ir belongs: {_WRITE.call}; "
            "layergraph.to_ir(model) gives one"
        )
    if state_dict is not None and not isinstance(state_dict, Mapping):
        raise ArgumentError(
            f"a {type(state_dict).__name__} stands where the state dict belongs: {_WRITE.call}; "
            "model.state_dict() gives one"
        )
    _call(_WRITE, path, (ir, path, state_dict), options)


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
    ir: Ir = _call(_READ, path, (path,), options)
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
        options: as for :func:`load`. The formats of ``layergraph-files`` also take ``weights``, the
            path of a ``.safetensors`` file, of the index of several or of their folder, of any
            program, that holds the weights instead; ``keys``, a mapping from names in the file to
            keys of the model, or a function that returns the key for a name, or None for a tensor
            to skip; and, with ``layergraph-distributed``, ``mesh`` and ``plan``: the devices of
            several processes, and the distribution of the model over them. Each process then reads
            only the parts of the tensors that it holds.

    Returns:
        The model, as :func:`layergraph.to_torch` returns it.

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
    given = {"device": device, "dtype": dtype}
    options |= {name: each for name, each in given.items() if each is not None}
    model: nn.Module = _call(_BUILD, path, (path,), options)
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
        >>> from layergraph_files.api import installed_formats
        >>> installed_formats()[".json"].description
        'structure, as readable text'
    """
    return {suffix: each for suffix, (_, each) in _installed().items()}


def _installed() -> dict[str, tuple[Plugin, Format]]:
    """Return the formats of the installed plugins with their plugins, by suffix."""
    found: dict[str, tuple[Plugin, Format]] = {}
    for plugin, each in installed_answers("formats"):
        found.setdefault(each.suffix, (plugin, each))
    return found


def _module() -> type:
    from torch import nn

    return nn.Module


class _Role(NamedTuple):
    """One of the functions of a format.

    Attributes:
        name: the attribute of :class:`Format`.
        call: the call of the user, for errors.
        verb: the predicate of a sentence about a package that has the function.
        answer: returns the type of the function's result; a function, because it may import torch.
    """

    name: str
    call: str
    verb: str
    answer: Callable[[], type]


_WRITE = _Role("write", "save(ir, path, state_dict)", "writes", lambda: object)
_READ = _Role("read", "load(path)", "reads", lambda: Ir)
_BUILD = _Role("build", "load_model(path)", "builds a model from", _module)


def _call(role: _Role, path: object, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call the function of a format that a path needs.

    Args:
        role: the function.
        path: the path.
        args: the arguments by position.
        options: the arguments by name. The function may not take all of them.

    Raises:
        ArgumentError: the path is not a path, or the function has no such option.
        FileError: no installed package has such a format, or its function raised an OSError.
        PluginError: the function of a third-party plugin raised a foreign error, or returned a
            wrong type.
    """
    text = _text_of(path, role)
    name = text.rpartition(os.sep)[2].lower()
    known = _installed()
    suffix = max((each for each in known if name.endswith(each)), key=len, default=None)
    function = None if suffix is None else getattr(known[suffix][1], role.name)
    if suffix is None or function is None:
        able = (each for each, (_, row) in known.items() if getattr(row, role.name))
        listed = ", ".join(sorted(filter(None, able)))
        reason = f"{text!r}: no installed package {role.verb} files"
        # layergraph-files has the empty suffix, so it may be the missing package.
        ways = [f"give one of {listed}"] if listed else []
        ways += [] if "" in known else [way_to_get("layergraph-files")]
        raise FileError(f"{reason}{' of that suffix' if listed else ''}; {'; or '.join(ways)}")
    plugin = known[suffix][0]
    owner = f"{role.name!r} for {suffix or 'other paths'!r} of {plugin}"
    _check_options(function, args, options, suffix, owner)
    try:
        answer = function(*args, **options)
    except (LayergraphError, KeyboardInterrupt, Warning):
        raise
    except BaseException as error:
        if plugin.is_builtin:  # an error of ours shows as it is
            raise
        if isinstance(error, OSError):
            raise FileError(f"{text!r}: {error.strerror or error}; check the path") from error
        raise PluginError(
            f"{owner} raised {type(error).__name__}: {first_line(error)}; mend it, or disable "
            f"{plugin.distribution}"
        ) from error
    expected = role.answer()
    if not isinstance(answer, expected):
        raise PluginError(
            f"{owner} returned a {type(answer).__name__}; it must return a {expected.__name__}; "
            f"mend it, or disable {plugin.distribution}"
        )
    return answer


def _text_of(path: object, role: _Role) -> str:
    try:
        text = os.fspath(path) if isinstance(path, str | PathLike) else None
    except Exception as error:  # from the user's class of paths
        raise ArgumentError(
            f"the path, a {type(path).__name__}, raised {type(error).__name__}: "
            f"{first_line(error)}; give another path: {role.call}"
        ) from error
    if not isinstance(text, str):
        raise ArgumentError(f"a {type(path).__name__} stands where the path belongs: {role.call}")
    return text


def _check_options(
    function: Any, args: tuple[Any, ...], options: dict[str, Any], suffix: str, owner: str
) -> None:
    """Check that the function of a format takes the given arguments.

    Raises:
        ArgumentError: the function has no such option, or an option is missing.
        PluginError: the function does not take the arguments by position.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some C functions have no signature; the call checks
        return
    try:
        positional = signature.bind_partial(*args).arguments
    except TypeError as error:
        raise PluginError(f"{owner} cannot be called: {error}; mend or disable it") from None
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        free = [each for each in signature.parameters.values() if each.name not in positional]
        offered = [each.name for each in free if each.kind in named]
        unknown = sorted(options.keys() - set(offered))
        place = suffix or "this path"
        if not unknown:
            raise ArgumentError(f"the options for {place} do not fit: {error}") from None
        raise ArgumentError(
            f"{unknown[0]!r} is not an option for {place}; it takes {', '.join(offered) or 'none'}"
        ) from None
