"""Models with packed weights of several libraries: one process for each.

``python packed_kinds.py FOLDER`` prints a line of JSON for each: the exit code of its process, and
for each function ``kept``, ``refused: …`` or the error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import nn
from torch.ao import quantization

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import bitwise_equal

FUNCTIONS = ("to_ir", "to_torch", "save", "load_model")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).eval()


def stubs() -> nn.Module:
    return nn.Sequential(quantization.QuantStub(), network(), quantization.DeQuantStub()).eval()


def words() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(64, 64), nn.Linear(64, 64)).eval()


def torchao(name: str, make: Callable[[], nn.Module] = network) -> nn.Module:
    from torchao import quantization as ao
    from torchao.quantization.qat import QATConfig

    int4 = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerGroup(32))
    dynamic = ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=ao.PerGroup(32)
    )
    steps: dict[str, list[Any]] = {
        "int8": [ao.Int8WeightOnlyConfig()],
        "int8 dynamic": [ao.Int8DynamicActivationInt8WeightConfig()],
        "int4": [int4],
        "float8": [ao.Float8WeightOnlyConfig()],
        "prepared": [QATConfig(dynamic, step="prepare")],
        "converted": [QATConfig(dynamic, step="prepare"), QATConfig(dynamic, step="convert")],
    }
    model = make()
    for step in steps[name]:
        ao.quantize_(model, step, filter_fn=lambda each, _: isinstance(each, nn.Linear))
        if isinstance(model[0], nn.Linear):
            model(torch.randn(3, 64))  # a call lets quantizers record their scales
    if make is words:
        int8 = ao.IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=ao.PerAxis(0))
        ao.quantize_(model, int8, filter_fn=lambda each, _: isinstance(each, nn.Embedding))
    return model


def torch_ao(name: str) -> nn.Module:
    if name == "dynamic":
        return quantization.quantize_dynamic(network(), {nn.Linear})
    model = stubs()
    is_training = name == "training"
    model.train(is_training)
    model.qconfig = (
        quantization.get_default_qat_qconfig("fbgemm")
        if is_training
        else quantization.get_default_qconfig("fbgemm")
    )
    (quantization.prepare_qat if is_training else quantization.prepare)(model, inplace=True)
    model(torch.randn(3, 64))
    return model.eval() if is_training else quantization.convert(model)


class Packed(nn.Parameter):
    """A weight like those of bitsandbytes: bytes, and scales beside these."""

    def __new__(cls, data: torch.Tensor) -> Self:
        return torch.Tensor._make_subclass(cls, data, False)


class Linear4(nn.Linear):
    """Two weights in each byte, and one scale for the layer."""

    def __init__(self, dense: nn.Linear, wrap: Callable[[torch.Tensor], nn.Parameter]) -> None:
        super().__init__(dense.in_features, dense.out_features)
        self.bias = dense.bias
        scale = dense.weight.detach().abs().max() / 7
        levels = (dense.weight.detach() / scale).round().add(8).to(torch.uint8).flatten()
        self.weight = wrap(levels[::2] * 16 + levels[1::2])
        self.weight.scale = scale

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.scale"] = self.weight.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.stack([self.weight >> 4, self.weight & 15], dim=1).as_subclass(torch.Tensor)
        weight = (levels.float() - 8).view(self.out_features, self.in_features)
        return nn.functional.linear(x, weight * self.weight.scale, self.bias)


def packed(wrap: Callable[[torch.Tensor], nn.Parameter]) -> nn.Module:
    first, relu, last = network()
    return nn.Sequential(Linear4(first, wrap), relu, Linear4(last, wrap))


CASES: dict[str, Callable[[], nn.Module]] = {
    "torchao int8": lambda: torchao("int8"),
    "torchao int8 dynamic": lambda: torchao("int8 dynamic"),
    "torchao int4": lambda: torchao("int4"),
    "torchao float8": lambda: torchao("float8"),
    "torchao QAT": lambda: torchao("prepared"),
    "torchao QAT, converted": lambda: torchao("converted"),
    "torchao embedding": lambda: torchao("int8", words),
    "torch.ao static": lambda: torch_ao("static"),
    "torch.ao dynamic": lambda: torch_ao("dynamic"),
    "torch.ao QAT": lambda: torch_ao("training"),
    "packed class": lambda: packed(Packed),
    "packed bytes": lambda: packed(lambda data: nn.Parameter(data, requires_grad=False)),
}


def _input(model: nn.Module) -> torch.Tensor:
    has_words = isinstance(model[0], nn.Embedding)
    return torch.randint(0, 64, (5, 3)) if has_words else torch.randn(5, 64)


def _same(one: nn.Module, other: nn.Module) -> str:
    x = _input(other)
    with torch.no_grad():
        return "kept" if bitwise_equal(one(x), other(x)) else "other outputs"


def kept(name: str, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the steps of a model, by function. The first one raises if it is refused."""
    model, path = CASES[name](), folder / "model.safetensors"
    ir = lg.to_ir(model, (_input(model),))
    yield "to_ir", lambda: "kept"
    yield "to_torch", lambda: _same(lg.to_torch(ir, model.state_dict()), model)
    yield "save", lambda: lg.save(ir, path, model.state_dict()) or "kept"
    yield "load_model", lambda: _same(lg.load_model(path), model)


def given(name: str, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the steps that pass the weights of a model to a dense model, by function."""
    ir, state = lg.to_ir(network()), CASES[name]().state_dict()
    path, weights = folder / "model.safetensors", folder / "weights.safetensors"
    yield "to_torch", lambda: lg.to_torch(ir, state)
    yield "save", lambda: lg.save(ir, path, state)
    lg.save(ir, path, network().state_dict())
    try:
        save_file(state, weights)
    except Exception:  # safetensors cannot write such tensors
        return
    yield "load_model", lambda: lg.load_model(path, weights=weights)


def outcomes(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the outcome of each function. If the model is refused, test its weights instead."""
    try:
        steps = list(kept(name, folder))
    except LayergraphError as error:
        yield "to_ir", f"refused: {error}"
        steps = given(name, folder)
    for function, step in steps:
        try:
            outcome = str(step())
        except LayergraphError as error:
            outcome = f"refused: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        yield function, outcome


def main(folder: Path, names: list[str]) -> None:
    """Print the outcome for each model."""
    warnings.simplefilter("ignore")
    torchao("int8")  # import everything once, so that each child has it
    for name in names or CASES:
        out = folder / "outcomes"
        child = os.fork()
        if not child:
            with out.open("w") as file:
                for function, outcome in outcomes(name, folder):
                    file.write(json.dumps([function, outcome]) + "\n")
                    file.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = dict(map(json.loads, out.read_text().splitlines()))
        print(json.dumps({"name": name, "exit code": status, "found": found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
