"""torch.jit.script, torch.compile and torch.export of rebuilt models: results, or clear errors."""

from __future__ import annotations

import dataclasses
import io
import math
import warnings

import pytest
import torch
import torch._dynamo
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.seq = nn.Sequential(nn.Linear(4, 4), nn.ReLU())


def _module(forward):
    return type("Model", (Base,), {"forward": forward})()


def _rebuilt(model, *args):
    return lg.to_torch(lg.to_ir(model, args), model.state_dict())


def _scripted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


def _branches(self, x):
    return self.lin(x) if x.shape[0] < 50 and x.dtype == torch.float32 else x


def _no_grad(self, x):
    with torch.no_grad():
        return self.lin(x)


def _options(self, x, mask=None, factor=2, flag=True, name="a", other=None):
    return x * mask * factor if flag and name == "a" and other is None else x


TAKEN = {
    "layers in containers": lambda self, x: self.seq(self.lin(x).relu()),
    "a branch": _branches,
    "sizes": lambda self, x: self.lin(x).reshape(x.shape[0], -1) * x.shape[-1] ** -0.5,
    "slices": lambda self, x: x[:, 1:3] + x[..., :2],
    "infinity": lambda self, x: x.masked_fill(x > 0, -math.inf),
    "dtypes": lambda self, x: x.to(torch.float64).softmax(-1, dtype=torch.float32),
    "a memory format": lambda self, x: x.contiguous(memory_format=torch.contiguous_format),
    "parts": lambda self, x: x.chunk(2, 1)[0],
}


@pytest.mark.parametrize("name", TAKEN)
def test_scripts(name):
    model = _module(TAKEN[name])
    rebuilt = _rebuilt(model, X)
    code, modules = rebuilt.code, list(rebuilt.modules())
    scripted = _scripted(rebuilt)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    for each in (scripted, torch.jit.load(file)):
        assert bitwise_equal(each(X), model(X))
    assert rebuilt.code == code
    assert list(map(id, rebuilt.modules())) == list(map(id, modules))
    assert bitwise_equal(rebuilt(X), model(X))


def test_scripts_assert_what_was_assumed():
    rebuilt = _rebuilt(_module(_options), X, X)
    scripted = _scripted(rebuilt)
    assert bitwise_equal(scripted(X, X), rebuilt(X, X))
    for wrong in ((X, None), (X, X, 3), (X, X, 2, False), (X, X, 2, True, "b"), (X,)):
        with pytest.raises(torch.jit.Error, match="was captured"):
            scripted(*wrong)
    with pytest.raises(torch.jit.Error, match="was captured"):
        _scripted(_rebuilt(_module(_branches), X))(torch.randn(60, 4))


REFUSED = {
    "a region": (_no_grad, "region"),
    "two graphs": (lambda self, x: x if self.training else self.lin(x), "in_mode"),
    "a container": (lambda self, x: x[0] * 2, "tuple"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_scripts_that_cannot_be(name):
    forward, word = REFUSED[name]
    rebuilt = _rebuilt(_module(forward), (X, X) if name == "a container" else X)
    with pytest.raises(BuildError, match=f"torch.jit.script.*{word}"):
        _scripted(rebuilt)


def test_one_mode_can_be_scripted():
    model = _module(lambda self, x: x if self.training else self.lin(x))
    ir = lg.to_ir(model, (X,)).in_mode(training=False)
    assert bitwise_equal(_scripted(lg.to_torch(ir, model.state_dict()))(X), model.eval()(X))


def _long(self, x):
    if x.shape[0] > 50 or x.shape[0] + x.shape[1] > 100:
        raise ValueError("too long")
    return self.lin(x) * x.shape[0]


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiles_for_several_sizes(dynamic):
    torch._dynamo.reset()
    model = _module(_long)
    compiled = torch.compile(_rebuilt(model, X), backend="eager", dynamic=dynamic, fullgraph=True)
    for size in (3, 5, 7):
        x = torch.randn(size, 4)
        assert bitwise_equal(compiled(x), model(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_a_dynamic_size(strict):
    model = _module(_long)
    sizes = ({0: torch.export.Dim("n", max=50)},)
    program = torch.export.export(_rebuilt(model, X), (X,), dynamic_shapes=sizes, strict=strict)
    x = torch.randn(7, 4)
    assert bitwise_equal(program.module()(x), model(x))


class Unspellable(Base):
    """The names of members are no names of Python, or those of other attributes."""

    def __init__(self):
        super().__init__()
        self.named = nn.ModuleDict({"a b": nn.Linear(4, 4), "graph": nn.Linear(4, 4)})
        self.register_parameter("p q", nn.Parameter(torch.randn(4)))

    def forward(self, x):
        return self.named["a b"](x) * self.named["graph"](x) + getattr(self, "p q")


class Outer(Base):
    def __init__(self):
        super().__init__()
        self.inner = _module(lambda self, x: self.lin(self.seq(x)) + 1)

    def forward(self, x):
        return self.lin(self.inner(x)) * self.seq(x)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cls", [Outer, Unspellable])
def test_exports_with_children(cls, strict):
    model = cls()
    program = torch.export.export(_rebuilt(model, X), (X,), strict=strict)
    assert [*program.state_dict] == [*model.state_dict()]
    assert bitwise_equal(program.module()(-X), model(-X))


def test_exports_name_the_modules():
    model = Outer()
    program = torch.export.export(_rebuilt(model, X), (X,), strict=True)
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    paths = {path for stack in stacks for path, _ in stack.values()}
    assert {"inner", "inner.lin", "inner.seq.0", "lin", "seq.0"} <= paths
    assert bitwise_equal(torch.export.unflatten(program)(-X), model(-X))


def test_an_exported_program_takes_outputs_of_the_same_fields_only():
    class Gives(Base):
        def forward(self, x):
            return Fields(self.lin(x), x)

    class Takes(Base):
        def forward(self, given):
            return self.lin(given.left)

    Fields = dataclasses.make_dataclass("Fields", ["left", "right"])
    given = _rebuilt(Gives(), X)(X)
    model = Takes()
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)), model.state_dict())
    program = torch.export.export(rebuilt, (given,), strict=False).module()
    other = type(given)(left=-X, right=X)
    assert bitwise_equal(program(other), model(other))
    with pytest.raises((RuntimeError, ValueError, TypeError, AssertionError)):
        program(type(given)(left=X))
