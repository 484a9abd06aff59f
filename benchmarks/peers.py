"""The round trips of the peers through a file; each returns a callable like the original.

All peers get example inputs, also those that need none.
"""

# ruff: noqa: ARG001

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import layergraph as lg

Model = Callable[..., Any]
RoundTrip = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Path], Model]


def layergraph(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path) -> Model:
    ir = lg.to_ir(model, args, kwargs, values="assume")
    return _through(at / "layergraph.safetensors", ir, model)


def layergraph_own(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path
) -> Model:
    """Capture only the model's own mode, as torch.export does."""
    ir = lg.to_ir(model, args, kwargs, values="assume", modes="own")
    return _through(at / "own.safetensors", ir, model)


def layergraph_without_inputs(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path
) -> Model:
    """Capture without inputs if the code allows it, in both modes."""
    return _through(at / "traced.safetensors", lg.to_ir(model), model)


def _through(path: Path, ir: lg.Ir, model: nn.Module) -> Model:
    lg.save(ir, path, model.state_dict())
    return lg.load_model(path)


def torch_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path
) -> Model:
    with silence():  # It prints the graphs that it gives up on.
        torch.export.save(torch.export.export(model, args, kwargs), at / "export.pt2")
        return torch.export.load(at / "export.pt2").module()


def torch_export_unflatten(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path
) -> Model:
    with silence():
        torch.export.save(torch.export.export(model, args, kwargs), at / "unflat.pt2")
        return torch.export.unflatten(torch.export.load(at / "unflat.pt2"))


def onnx(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path) -> Model:
    import onnx2torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    path = str(at / "model.onnx")
    with silence():
        try:
            # onnx2torch knows the operators of opset 13, which only the older exporter writes, and
            # loses its way among constants that were folded.
            torch.onnx.export(
                model,
                (*args, kwargs),
                path,
                dynamo=False,
                opset_version=13,
                do_constant_folding=False,
            )
        except Exception:
            torch.onnx.export(model, args, path, kwargs=kwargs, dynamo=True, verbose=False)
        converted = onnx2torch.convert(path).eval()
    # It takes all inputs by position, in the order in which they were given.
    return lambda *args, **kwargs: converted(*args, *kwargs.values())


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress all output, also of C code."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def nirtorch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path) -> Model:
    import nir
    import nirtorch as peer

    nir.write(str(at / "model.nir"), peer.torch_to_nir(model, {}))
    back = peer.nir_to_torch(nir.read(str(at / "model.nir")), {})
    # It also returns the state of the network.
    return lambda *args, **kwargs: back(*args, **kwargs)[0]


def elasticai(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path) -> Model:
    # Its IR has no file of its own: it only goes through memory, and its weights through a file.
    from elasticai.creator.ir2torch import get_default_converter as ir2torch
    from elasticai.creator.torch2ir import get_default_converter as torch2ir

    ir = list(torch2ir().convert(model))
    torch.save(model.state_dict(), at / "elasticai.pt")
    back: nn.Module = ir2torch().convert(ir, torch.load(at / "elasticai.pt"))
    return back.eval()


def torch_save(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path) -> Model:
    torch.save(model, at / "model.pt")
    return torch.load(at / "model.pt", weights_only=False)


def weights_alone(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: Path
) -> Model:
    # No model comes back: that takes the original's code.
    safetensors.torch.save_model(model, str(at / "weights.safetensors"))
    safetensors.torch.load_file(at / "weights.safetensors")
    return model


PEERS: dict[str, RoundTrip] = {
    "torch.export": torch_export,
    "torch.export, unflatten": torch_export_unflatten,
    "torch.onnx and onnx2torch": onnx,
    "nirtorch": nirtorch,
    "elasticai.creator": elasticai,
    "torch.save": torch_save,
    "safetensors, weights alone": weights_alone,
}
