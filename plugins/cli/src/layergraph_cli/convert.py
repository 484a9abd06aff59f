"""``layergraph convert``: write the model that a Python function returns to a file."""

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
        typer.Option(help="A file with the state dict: .safetensors, or of torch.save."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="package.module:function, which returns inputs for the model."),
    ] = None,
    values: Annotated[
        Values,
        typer.Option(
            help="If the model branches on tensor values: capture both branches, "
            "assume the branch of the inputs, or refuse the model."
        ),
    ] = Values.both,
) -> None:
    """Convert the model that a Python function returns.

    layergraph runs the model on the inputs. Without --inputs, it asks the plugins for example
    inputs; if no plugin has any, it traces the model. Modules may be in the current folder.
    """
    _check_usage(source, out, weights)
    arguments = dict(map(_argument, arg or []))
    # Import before named() puts the current folder into sys.path: a module there may hide one that
    # these imports need.
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
            f"{source} is a file of weights, or a pickle that can run any code; name the function "
            "that makes the model, and pass the file's state dict as --weights: "
            f"layergraph convert package.module:function {out} --weights {source}"
        )
    if out.suffix not in (".json", ".safetensors"):
        raise NamedError(f"{out}: use the suffix .safetensors or .json")
    if out.suffix == ".json" and weights is not None:
        raise NamedError(f"{out}: a .json holds no weights; convert to .safetensors")


def _argument(text: str) -> tuple[str, Any]:
    name, given, value = text.partition("=")
    if not given or not name.isidentifier():
        raise NamedError(f"--arg {text!r} is not a named argument; write name=value")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError) as error:
        raise NamedError(
            f"--arg {text!r}: the value is not JSON ({error}); put a text in quotes: "
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
    """Return arguments to run the model on; None if the command should trace it."""
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
