"""Passes: named functions that edit an IR, from any installed package."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from layergraph.errors import ArgumentError, LayergraphError, PluginError, first_line, near
from layergraph.hook_types.passes import Pass
from layergraph.ir import Ir
from layergraph.plugins import Plugin, installed_answers
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.report import Report
from layergraph_rewrite.sources import Tensors

if TYPE_CHECKING:
    import torch

AnyPass: TypeAlias = "str | Pass | Callable[..., None] | tuple[Any, Mapping[str, Any]]"
Inputs: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"


class InstalledPass(NamedTuple):
    """A pass and the plugin that lists it; the plugin is None for a pass of the caller."""

    row: Pass
    plugin: Plugin | None

    def __str__(self) -> str:
        owner = "" if self.plugin is None else f" of {self.plugin}"
        return f"the pass {self.row.name!r}{owner}"


def installed_passes() -> dict[str, InstalledPass]:
    """Return the passes that the installed plugins list through the hook ``passes``, by name.

    Of two passes with one name, the plugin that is asked first wins: see :mod:`layergraph.plugins`.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its passes are skipped.

    Example:
        >>> from layergraph_rewrite.passes import installed_passes
        >>> "fold-batchnorm" in installed_passes()
        True
    """
    found: dict[str, InstalledPass] = {}
    for plugin, row in installed_answers("passes"):
        found.setdefault(row.name, InstalledPass(row, plugin))
    return found


def run_passes(
    ir: Ir,
    passes: Iterable[AnyPass],
    state: Mapping[str, torch.Tensor] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    verify: Inputs | None = None,
) -> tuple[Ir, Tensors | None, Report]:
    """Run passes one after another.

    Args:
        ir: the IR, which stays as it is.
        passes: names of installed passes, :class:`layergraph.Pass` rows, or functions that take an
            edit; or pairs of one of these and a dict of options.
        state: the state dict of the IR.
        options: options by the name of a pass, as ``{"fuse-chain": {"name": "block"}}``.
        verify: arguments of a call, ``(args, kwargs)``. After each pass, the model runs on these in
            the modes of the IR, and ``report.differences`` gets the largest change of an output by
            the pass. It needs ``state``.

    Returns:
        The new IR; the new state dict, which reads tensors lazily (None without ``state``); and the
        report of all changes and of the places that a pass refused.

    Raises:
        ArgumentError: there is no such pass, or it has no such option.
        InvalidIrError: the IR, or the result of a pass, breaks a rule.
        EditError: a pass made an impossible edit.
        PluginError: a third-party pass raised a foreign error.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
        ... ).eval()
        >>> x = torch.randn(1, 3, 8, 8)
        >>> ir, state, report = lg.run_passes(
        ...     lg.to_ir(model), ["fold-batchnorm"], model.state_dict(), verify=((x,), {})
        ... )
        >>> print(report.applied[0])
        fold-batchnorm: root:_1: folded into '0'
        >>> report.differences["fold-batchnorm"] < 1e-5
        True
        >>> list(ir), list(state)
        (['root', '0', '2'], ['0.weight', '0.bias'])
    """
    chosen = _chosen(passes, options or {})
    if verify is not None and state is None:
        raise ArgumentError("verify= runs the model, and needs its state dict: give state")
    edit = Edit(ir, state)
    before = _outputs(ir, state, verify)
    for each, given in chosen:
        run_pass(edit, each, given)
        after = _outputs(edit.ir, edit.state, verify) if verify is not None else None
        if after is not None and before is not None:
            name = each.row.name
            difference = largest_difference(before, after)
            edit.report.differences[name] = max(edit.report.differences.get(name, 0.0), difference)
        before = after
    return edit.ir, edit.state, edit.report


def run_pass(edit: Edit, each: InstalledPass, options: Mapping[str, Any]) -> None:
    """Run one pass on an edit, and check the IR.

    Raises:
        LayergraphError: as for :func:`run_passes`.
    """
    with edit.report.by(each.row.name):
        try:
            each.row.function(edit, **options)
        except (LayergraphError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if each.plugin is None or each.plugin.is_builtin:
                raise  # an error of ours or of the caller shows as it is
            raise PluginError(
                f"{each} raised {type(error).__name__}: {first_line(error)}; mend it, or disable "
                f"{each.plugin.distribution}"
            ) from error


def _chosen(
    passes: Iterable[AnyPass], options: Mapping[str, Mapping[str, Any]]
) -> list[tuple[InstalledPass, dict[str, Any]]]:
    if isinstance(passes, str) or not isinstance(passes, Iterable):
        raise ArgumentError(f"give a list of passes, as [{passes!r:.80}]")
    if not isinstance(options, Mapping) or not all(
        isinstance(each, Mapping) for each in options.values()
    ):
        raise ArgumentError(
            f'{options!r:.80} is no dict of options by pass; write it as {{"split": {{"at": "0"}}}}'
        )
    chosen = []
    for each in passes:
        one, given = each if isinstance(each, tuple) and len(each) == 2 else (each, {})
        if not isinstance(given, Mapping):
            raise ArgumentError(f"{each!r:.80} is no pair of a pass and a dict of its options")
        found = _found(one)
        chosen.append((found, {**options.get(found.row.name, {}), **given}))
    for name in options:
        if all(found.row.name != name for found, _ in chosen):
            raise ArgumentError(f"options are given for {name!r}, which is not among the passes")
    for found, given in chosen:
        _check_options(found, given)
    return chosen


def _found(each: Any) -> InstalledPass:
    if isinstance(each, Pass):
        return InstalledPass(each, None)
    if isinstance(each, str):
        known = installed_passes()
        if each not in known:
            raise ArgumentError(_unknown(f"there is no pass {each!r}", each, known))
        return known[each]
    if callable(each):
        name = getattr(each, "__name__", type(each).__name__).replace("_", "-")
        return InstalledPass(Pass(name, each), None)
    raise ArgumentError(f"{each!r:.80} is no pass; give a name, a Pass or a function")


def _check_options(found: InstalledPass, given: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(found.row.function)
        signature.bind(None, **given)
    except ValueError:  # some C functions have no signature; the call checks
        return
    except TypeError as error:
        names = [option.name for option in found.row.options]
        for name in given:
            if name not in names:
                message = f"{name!r} is not an option of {found}"
                raise ArgumentError(_unknown(message, name, names)) from None
        raise ArgumentError(f"the options of {found} do not fit: {error}") from None
    for option in found.row.options:
        if option.name in given and not fits_option(given[option.name], option.type):
            raise ArgumentError(
                f"the option {option} of {found} cannot be {given[option.name]!r:.80}"
            )


def fits_option(value: Any, kind: str) -> bool:
    """Return whether a value is of one of the types in an annotation. Unknown ones take any.

    Example:
        >>> from layergraph_rewrite.passes import fits_option
        >>> fits_option(3, "int | None"), fits_option("3", "int | None")
        (True, False)
    """
    names = [each.strip() for each in kind.split("|")] if kind else ["Any"]
    return any(each not in _KINDS or _KINDS[each](value) for each in names)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "str": lambda value: isinstance(value, str),
    "Sequence[str]": lambda value: (
        isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    ),
}


def _unknown(message: str, name: str, known: Iterable[str]) -> str:
    listed = list(known)
    hints = near(name, listed) or [f"there is {', '.join(listed) or 'none'}"]
    return "; ".join([message, *hints])


def _outputs(ir: Ir, state: Mapping[str, torch.Tensor] | None, inputs: Inputs | None) -> Any:
    """Return the outputs of a model for some inputs, in the modes of the IR."""
    if inputs is None:
        return None
    import torch

    from layergraph.api import to_torch

    try:
        args, kwargs = inputs
        is_call = isinstance(args, tuple | list) and isinstance(kwargs, Mapping)
    except (TypeError, ValueError):
        is_call = False
    if not is_call:
        raise ArgumentError("verify= is no call; give a tuple and a dict, as verify=((x,), {})")
    args, kwargs = copy.deepcopy(inputs)
    model = to_torch(ir, state)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(*args, **kwargs)


def largest_difference(one: Any, other: Any) -> float:
    """Return the largest absolute difference between the tensors of two values.

    It is infinite if the values have other structures, shapes or dtypes.

    Example:
        >>> import torch
        >>> from layergraph_rewrite.passes import largest_difference
        >>> largest_difference({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 2.5])})
        0.5
    """
    import torch
    from torch.utils import _pytree as pytree

    mine, form = pytree.tree_flatten(one)
    theirs, other_form = pytree.tree_flatten(other)
    if form != other_form:
        return math.inf
    most = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
            most = most if a == b else math.inf
        elif a.shape != b.shape or a.dtype != b.dtype:
            return math.inf
        elif a.numel():
            wide = torch.complex128 if a.is_complex() else torch.float64
            gap = (a.to(wide) - b.to(wide)).abs()
            gap[(a == b) | (a.isnan() & b.isnan())] = 0  # also equal infinities
            most = max(most, math.inf if gap.isnan().any() else float(gap.max()))
    return most
