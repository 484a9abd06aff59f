"""Tensors of every kind in every place of a model: one process for each kind.

``python tensor_matrix.py FOLDER`` prints a line of JSON for each kind: the exit code of its
process, and for each place ``kept``, ``refused`` or the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import bitwise_equal

SHAPE = (4, 4)


class Wrapper(torch.Tensor):
    """Has no memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        inner = torch.utils._pytree.tree_map_only(cls, lambda each: each.inner, args)
        made = func(*inner, **(kwargs or {}))
        return cls(made) if func is torch.ops.aten.detach.default else made


class Plain(torch.Tensor):
    """Has memory, and overrides addition."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs)


def dtensor():
    from torch.distributed import HashStore, init_process_group, is_initialized
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    if not is_initialized():
        init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    return distribute_tensor(torch.randn(SHAPE), init_device_mesh("cpu", (1,)), [Shard(0)])


def fake():
    with FakeTensorMode():
        return torch.randn(SHAPE)


def functional():
    with FunctionalTensorMode():
        return FunctionalTensor.to_functional(torch.randn(SHAPE))


def masked():
    from torch.masked import masked_tensor

    return masked_tensor(torch.randn(SHAPE), torch.ones(SHAPE, dtype=torch.bool))


def nested(layout):
    return torch.nested.nested_tensor([torch.randn(4), torch.randn(3)], layout=layout)


def freed():
    tensor = torch.randn(SHAPE)
    tensor.untyped_storage().resize_(0)
    return tensor


def inference():
    with torch.inference_mode():
        return torch.randn(SHAPE)


def leaked(transform: Callable[..., Any]):
    """Return a tensor that outlives the transform of torch.func that made it."""
    found: list[torch.Tensor] = []

    def note(x):
        found.append(x)
        return x.sum()

    transform(note)(torch.randn(SHAPE))
    return found[0]


KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "dense": lambda: torch.randn(SHAPE),
    "dtensor": dtensor,
    "fake": fake,
    "functional": lambda: torch._to_functional_tensor(torch.randn(SHAPE)),
    "functional of Python": functional,
    "coo": lambda: torch.eye(4).to_sparse(),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "nested": lambda: nested(torch.strided),
    "jagged": lambda: nested(torch.jagged),
    "complex": lambda: torch.randn(SHAPE, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(SHAPE, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(SHAPE, dtype=torch.complex64).conj().imag,
    "onednn": lambda: torch.randn(SHAPE).to_mkldnn(),
    "quantized": lambda: torch.quantize_per_tensor(torch.randn(SHAPE), 0.1, 0, torch.qint8),
    "meta": lambda: torch.randn(SHAPE, device="meta"),
    "zero": lambda: torch._efficientzerotensor(SHAPE),
    "freed": freed,
    "inference": inference,
    "of vmap": lambda: leaked(torch.vmap),
    "of grad": lambda: leaked(torch.func.grad),
    "masked": masked,
    "wrapper": lambda: Wrapper(torch.randn(SHAPE)),
    "subclass": lambda: torch.randn(SHAPE).as_subclass(Plain),
}


# For each kind, the function that returns a dense tensor for a tensor of the kind.
USES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": torch.Tensor.to_dense,
    "csr": torch.Tensor.to_dense,
    "bsr": torch.Tensor.to_dense,
    "onednn": torch.Tensor.to_dense,
    "quantized": torch.Tensor.dequantize,
    "nested": lambda tensor: torch.nested.to_padded_tensor(tensor, 0.0).sum(),
    "jagged": lambda tensor: torch.nested.to_padded_tensor(tensor, 0.0).sum(),
    "dtensor": lambda tensor: tensor.full_tensor(),
    "masked": lambda tensor: tensor.get_data(),
    "wrapper": lambda tensor: tensor + 0,
}

PLACES = ("parameter", "buffer", "hidden", "constant", "input", "made in forward", "weight")


class Adds(nn.Module):
    """Adds a tensor that it holds.

    Args:
        place: "parameter", "buffer" or "constant".
        tensor: the tensor.
    """

    def __init__(self, place: str, tensor: torch.Tensor) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        if place == "parameter":
            self.held = nn.Parameter(tensor, requires_grad=False)
        elif place == "constant":
            self.held = tensor
        else:
            self.register_buffer("held", tensor, persistent=place == "buffer")

    def forward(self, x):
        return self.lin(x) + self.held


class Returns(nn.Module):
    def forward(self, x):
        return x


class Makes(nn.Module):
    """Makes a tensor in forward, converts it to a dense one, and adds the result."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.make = KINDS[kind]
        self.use = USES.get(kind, torch.Tensor.contiguous)

    def forward(self, x):
        return x + self.use(self.make())


def _through_a_file(ir: lg.Ir, state: dict[str, Any], folder: Path) -> nn.Module:
    path = folder / "model.safetensors"
    lg.save(ir, path, state)
    try:
        return lg.load_model(path)
    finally:
        path.unlink()


def _convert(model: nn.Module, args: tuple[Any, ...] | None, folder: Path) -> str:
    """Convert a model there and back, also through a file, and compare."""
    x = torch.randn(3, 4, 4)
    ir = lg.to_ir(model, args)
    state = {key: value.detach() for key, value in model.state_dict().items()}
    rebuilt = [lg.to_torch(ir, state), _through_a_file(ir, state, folder)]
    if isinstance(model, Makes):  # the values are random in each call
        return "kept" if all(each(x).shape == x.shape for each in rebuilt) else "another shape"
    if not all(bitwise_equal(each(x), model(x)) for each in rebuilt):
        return "other outputs"
    return "kept"


def _runs(model: nn.Module, x: torch.Tensor) -> bool:
    """Return whether a model runs at all. One that reads freed memory ends the process."""
    try:
        model(x)
    except Exception:
        return False
    return True


def _weight(tensor: torch.Tensor, folder: Path) -> str:
    """Pass a tensor as a weight to the build, and to a file."""
    model = Adds("buffer", torch.randn(SHAPE, dtype=tensor.dtype if tensor.is_complex() else None))
    ir = lg.to_ir(model)
    state = model.state_dict() | {"held": tensor}
    found = []
    for how in (
        lambda: lg.to_torch(ir, state),
        lambda: lg.to_torch(ir, state, device="meta"),
        lambda: _through_a_file(ir, state, folder),
    ):
        try:
            rebuilt = how()
        except LayergraphError as error:
            found.append("refused" if "'held'" in str(error) else f"not by name: {error}")
        else:
            held = rebuilt.held
            whole = getattr(tensor, "full_tensor", lambda: tensor.as_subclass(torch.Tensor))()
            same = held.is_meta or torch.equal(held, whole)
            found.append("kept" if same else "other numbers")
    assert found[1] in ("kept", found[0]), found
    # A file takes the parts of a distributed tensor from all processes.
    assert found[2] in ("kept", found[0]), found
    return found[0]


def _at(place: str, kind: str, folder: Path) -> str:
    x, make = torch.randn(3, 4, 4), KINDS[kind]
    if place == "input":
        ir = lg.to_ir(Returns(), (make(),))
        tensor = make()
        same = tensor.is_meta or bitwise_equal(lg.to_torch(ir)(tensor), tensor)
        return "kept" if same else "other numbers"
    if place == "made in forward":
        model: nn.Module = Makes(kind)
        return _convert(model, (x,), folder) if _runs(model, x) else "none"
    if place == "weight":
        return _weight(make(), folder)
    try:
        model = Adds(place, make())
    except Exception:  # torch makes no parameter of this kind
        return "none"
    if place == "buffer":
        for ask in (lg.preflight, lg.verify):
            str(ask(model, (x,)))
    with contextlib.suppress(LayergraphError):
        lg.to_ir(model)
    try:
        return _convert(model, (x,), folder)
    except RuntimeError:
        # Check this last: a model whose tensors have no memory ends the process when it runs.
        if _runs(model, x):
            raise
        return "none"


def places(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the outcome of each place."""
    for place in PLACES:
        if (kind, place) == ("freed", "made in forward"):
            continue
        try:
            outcome = _at(place, kind, folder)
        except LayergraphError as error:
            outcome = f"refused: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        yield place, outcome


def main(folder: Path, kinds: list[str]) -> None:
    """Print the outcome for each kind."""
    warnings.simplefilter("ignore")
    dict(places("dense", folder))  # import everything once, so that each child has it
    for kind in kinds or KINDS:
        out = folder / "outcomes"
        child = os.fork()
        if not child:
            with out.open("w") as file:
                for place, outcome in places(kind, folder):
                    file.write(json.dumps([place, outcome]) + "\n")
                    file.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = dict(map(json.loads, out.read_text().splitlines()))
        print(json.dumps({"kind": kind, "exit code": status, "places": found}), flush=True)
        out.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
