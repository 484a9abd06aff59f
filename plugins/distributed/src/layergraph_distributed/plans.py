"""Plans for distributing the tensors of a model over processes.

A plan is a function that calls torch, or a table from the paths of layers to the names of styles.
An IR can hold a table, as annotations of its layers, and so can a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from layergraph.errors import ArgumentError, BuildError, LayergraphError, first_line
from layergraph.ir import Ir, check

Table: TypeAlias = Mapping[str, str | Sequence[str]]
Style: TypeAlias = str | ParallelStyle
Function: TypeAlias = Callable[[nn.Module, DeviceMesh | None], object]
Plan: TypeAlias = Mapping[str, Style | Sequence[Style]] | Function

STYLE = "layergraph.parallel"
"""The annotation of a layer with the names of its styles."""

FULLY_SHARD = "fully_shard"

# The names are those of the plans of transformers, where these have one.
_TENSOR_STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "rowwise": RowwiseParallel,
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
    "sequence_parallel": SequenceParallel,
}
STYLES = (*_TENSOR_STYLES, FULLY_SHARD)
"""The names of styles."""

_TENSOR_AXIS = "tp"


def annotate_plan(ir: Ir, plan: Table) -> Ir:
    """Return a copy of an IR whose annotations hold a plan.

    :func:`layergraph.load_model` applies this plan if the caller passes a ``mesh`` and no ``plan``.

    Args:
        ir: the IR of the model.
        plan: the names of styles by the path of a layer, in which ``*`` stands for any one name.
            The empty path is the model itself. ``"colwise"``, ``"colwise_gather_output"``,
            ``"rowwise"``, ``"embedding_rowwise"`` and ``"sequence_parallel"`` are the styles of
            :mod:`torch.distributed.tensor.parallel`; ``"fully_shard"`` is the function of
            :mod:`torch.distributed.fsdp`.

    Raises:
        ArgumentError: the plan is not such a table, or has an unknown style.
        BuildError: no layer has a path of the plan, or a layer with several paths would have
            several styles.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 2)))
        >>> planned = lg.annotate_plan(ir, {"0": "colwise", "1": "rowwise"})
        >>> planned["0"].data["layergraph.parallel"]
        ('colwise',)
    """
    check(ir)
    copy = Ir.from_dict(ir.to_dict())
    layers = dict(_layers(copy))
    styles = _by_path(plan, list(layers))
    wanted: dict[str, tuple[str, ...]] = {}
    for path, name in layers.items():
        said = styles.get(path, ())
        if wanted.setdefault(name, said) != said:
            raise BuildError(
                f"{path!r} is the layer {name!r}, which has a different style under another path; "
                "give all of its paths the same style"
            )
    for name, said in wanted.items():
        if said:
            copy[name].data[STYLE] = said
        else:
            copy[name].data.pop(STYLE, None)
    return copy


def plan_of(ir: Ir) -> dict[str, tuple[str, ...]]:
    """Return the plan in an IR: the names of styles by path.

    Raises:
        BuildError: an annotation is not a tuple of names of styles.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 2)))
        >>> plan_of(lg.annotate_plan(ir, {"*": "fully_shard"}))
        {'0': ('fully_shard',), '1': ('fully_shard',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for path, name in _layers(ir):
        said: Any = ir[name].data.get(STYLE)
        if said is None:
            continue
        try:
            found[path] = _styles(path, said)
        except ArgumentError as error:
            raise BuildError(f"implementation {name!r}, attribute {STYLE!r}: {error}") from None
    return found


def apply(ir: Ir, model: nn.Module, mesh: DeviceMesh | None, plan: Plan | None) -> None:
    """Distribute the tensors of a model by a plan.

    Args:
        ir: the IR of the model.
        model: the model, on the meta device.
        mesh: the devices of the processes.
        plan: a table, as for :func:`annotate_plan`, whose styles may also be objects of torch, such
            as ``ColwiseParallel()``; or a function of the model and the mesh, which distributes the
            tensors in place. None: the plan in the IR.

    Raises:
        ArgumentError: the plan or the mesh is missing, or has a wrong type.
        BuildError: the plan does not fit the model.
    """
    if mesh is not None and not isinstance(mesh, DeviceMesh):
        raise ArgumentError(
            f"mesh is a {type(mesh).__name__}; torch.distributed.device_mesh.init_device_mesh "
            "makes one"
        )
    if callable(plan):
        made = plan(model, mesh)
        if isinstance(made, nn.Module) and made is not model:
            raise BuildError(
                f"the plan returned another module, a {type(made).__name__}; let it change the "
                "model in place, and wrap the loaded model"
            )
    else:
        _apply_table(ir, model, mesh, plan)


def _apply_table(ir: Ir, model: nn.Module, mesh: DeviceMesh | None, plan: object) -> None:
    paths = [path for path, _ in _layers(ir)]
    styles: Mapping[str, tuple[Any, ...]] = (
        plan_of(ir) if plan is None else _by_path(plan, paths, (str, ParallelStyle))
    )
    if not styles:
        remedy = "give plan=…, or save an IR of layergraph.annotate_plan"
        raise ArgumentError(f"there is a mesh, but no plan; {remedy}")
    if mesh is None:
        raise ArgumentError("there is a plan, but no mesh; give mesh=…")
    shard, tensor = _axes(mesh, {style for said in styles.values() for style in said})
    # torch requires fully_shard to come last, and to shard inner layers before outer ones.
    for path, said in styles.items():
        for style in said:
            if style != FULLY_SHARD:
                _apply_one(path, style, model, tensor)
    for path, said in sorted(styles.items(), key=lambda each: -_depth(each[0])):
        if FULLY_SHARD in said:
            _apply_one(path, FULLY_SHARD, model, shard)


def _apply_one(path: str, style: Style, model: nn.Module, mesh: DeviceMesh) -> None:
    module = model.get_submodule(path)
    try:
        if style == FULLY_SHARD:
            fully_shard(module, mesh=mesh)
        else:
            made = style if isinstance(style, ParallelStyle) else _TENSOR_STYLES[style]()
            parallelize_module(module, mesh, made)
    except LayergraphError:
        raise
    except Exception as error:
        raise BuildError(
            f"torch cannot apply the style {style!r} to {path!r}, a {type(module).__name__}: "
            f"{type(error).__name__}: {first_line(error)}; change the plan"
        ) from error


def _axes(mesh: DeviceMesh, styles: set[Style]) -> tuple[DeviceMesh, DeviceMesh]:
    """Return the submesh for ``fully_shard``, and that for the other styles.

    Raises:
        ArgumentError: the names of the mesh's dimensions do not distinguish the two.
    """
    if mesh.ndim == 1 and not (FULLY_SHARD in styles and len(styles) > 1):
        return mesh, mesh
    names = mesh.mesh_dim_names or ()
    if styles == {FULLY_SHARD} and _TENSOR_AXIS not in names:
        return mesh, mesh
    others = tuple(name for name in names if name != _TENSOR_AXIS)
    if _TENSOR_AXIS not in names or not others:
        raise ArgumentError(
            f"the mesh has the dimensions {names}; name the one for tensor parallelism "
            f"{_TENSOR_AXIS!r}, and add another one for fully_shard"
        )
    return mesh[others], mesh[_TENSOR_AXIS]


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _by_path(
    plan: object, paths: Sequence[str], kinds: tuple[type, ...] = (str,)
) -> dict[str, tuple[Any, ...]]:
    """Return the styles of each path that matches an entry of a plan; the first entry counts.

    Args:
        plan: the plan; its type is checked here.
        paths: the paths of the layers.
        kinds: the classes that a style may have.
    """
    if not isinstance(plan, Mapping):
        raise ArgumentError(
            f"plan is a {type(plan).__name__}; give a function of the model and the mesh, or a "
            "mapping from paths to styles"
        )
    found: dict[str, tuple[Any, ...]] = {}
    for pattern, said in plan.items():
        if not isinstance(pattern, str):
            raise ArgumentError(f"{pattern!r:.100} is not the path of a layer; give a string")
        styles = _styles(pattern, said, kinds)
        fitting = [path for path in paths if _fits(path, pattern)]
        if not fitting:
            raise BuildError(f"the plan names {pattern!r}, but no layer has such a path")
        for path in fitting:
            found.setdefault(path, styles)
    return found


def _fits(path: str, pattern: str) -> bool:
    # The empty path consists of no names, so "*" does not match it.
    names, patterns = (each.split(".") if each else [] for each in (path, pattern))
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _styles(path: str, said: object, kinds: tuple[type, ...] = (str,)) -> tuple[Any, ...]:
    styles = (said,) if isinstance(said, kinds) else said
    if not isinstance(styles, tuple | list) or not styles:
        raise ArgumentError(f"the plan has {said!r:.100} for {path!r}; give the name of a style")
    for style in styles:
        is_object = isinstance(style, ParallelStyle) and isinstance(style, kinds)
        if not is_object and style not in STYLES:
            raise ArgumentError(
                f"the plan has the style {style!r:.100} for {path!r}; known are {', '.join(STYLES)}"
            )
    return tuple(styles)


def _layers(ir: Ir) -> Iterator[tuple[str, str]]:
    """Yield the path and the implementation of each module, parents first."""
    stack = [("", ir.root)]
    while stack:
        path, name = stack.pop()
        yield path, name
        for child, target in reversed((ir[name].children or {}).items()):
            stack.append((f"{path}.{child}" if path else child, target))
