"""``layergraph convert``: write the model of a Python function to a file."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layergraph.errors import CaptureError
from layergraph_cli.named import NamedError, called, named
from layergraph_cli.output import counted, line

if TYPE_CHECKING:
    from torch import nn


class Values(StrEnum):
    """The values of the option ``--values``: see :func:`layergraph.to_ir`."""

    both = "both"
    assume = "assume"
    refuse = "refuse"


_TORCH_FILES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth", ".safetensors"})


def convert(
    source: Annotated[
        str, typer.Argument(help="package.module:function, which returns the model.")
    ],
    out: Annotated[Path, typer.Argument(help="A .safetensors file, or .json for no weights.")],
    arg: Annotated[
        list[str] | None,
        typer.Option(help="An argument of the function, name=value in JSON; repeatable."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A state dict to use, .safetensors or of torch.save."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="package.module:function, which returns inputs for the model."),
    ] = None,
    values: Annotated[
        Values,
        typer.Option(
            help="If the model branches on tensor values: capture both ways, "
            "assume the way of the inputs, or refuse."
        ),
    ] = Values.both,
) -> None:
    """Convert the model that a Python function returns.

    The model runs on the inputs. Without --inputs, layergraph asks the plugins for some; if no
    plugin knows any, it traces the model. Modules are also imported from the current folder.
    """
    _check_usage(source, out, weights)
    arguments = dict(map(_argument, arg or []))
    # This import comes first: later, a module of the current folder may hide another one.
    import layergraph as lg
    from layergraph_cli.weights import read_weights

    model = _model(source, arguments)
    if weights is None:
        state_dict = called(f"state_dict() of what {source} returned", model.state_dict, {})
    else:
        state_dict = read_weights(weights)
    args, kwargs = _inputs(inputs, model)
    ir = lg.to_ir(model, args, kwargs, values=values.value)
    lg.save(ir, out, None if out.suffix == ".json" else state_dict)
    line(f"{out}: {counted(len(ir), 'layer')}")


def _check_usage(source: str, out: Path, weights: Path | None) -> None:
    if Path(source).suffix.lower() in _TORCH_FILES or Path(source).is_file():
        raise NamedError(
            f"{source} is a file: what torch saves is weights, or code that only running it would "
            "show; name the function that makes the model, and give the file's state dict as "
            f"--weights: layergraph convert package.module:function {out} --weights {source}"
        )
    if out.suffix not in (".json", ".safetensors"):
        raise NamedError(f"{out}: give it the suffix .safetensors or .json")
    if out.suffix == ".json" and weights is not None:
        raise NamedError(f"{out}: a .json holds no weights; convert to .safetensors")


def _argument(text: str) -> tuple[str, Any]:
    name, given, value = text.partition("=")
    if not given or not name.isidentifier():
        raise NamedError(f"--arg {text!r} is no argument; write name=value")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError) as error:
        raise NamedError(
            f"--arg {text!r}: the value is no JSON ({error}); a text stands in quotes: "
            f"'{name}=\"text\"'"
        ) from None


def _model(source: str, arguments: dict[str, Any]) -> nn.Module:
    from torch import nn

    model = called(source, named(source), arguments)
    if not isinstance(model, nn.Module):
        raise NamedError(
            f"{source} returned a {type(model).__name__}; name a function that returns a "
            "torch.nn.Module"
        )
    return model


def _inputs(
    source: str | None, model: nn.Module
) -> tuple[tuple[Any, ...] | None, dict[str, Any] | None]:
    """Return the arguments to run the model with; None to trace it."""
    import layergraph as lg

    if source is None:
        try:
            return lg.example_inputs(model)
        except CaptureError:
            return None, None
    match called(source, named(source), {}):
        case (tuple() | list() as args, dict() as kwargs) if all(
            type(key) is str for key in kwargs
        ):
            return tuple(args), kwargs
        case tuple() | list() as args:
            return tuple(args), None
        case only:
            return (only,), None
