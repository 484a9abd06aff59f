"""Names of functions: each names one function, and functions that are not listed have none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.functions.names import Functions, attribute_name, method_name
from layergraph.testing import bitwise_equal


def _calling(name, *args):
    nodes = [
        lg.Node("x", "input", "x"),
        lg.Node("y", "function", name, args=(lg.Ref("x"), *args)),
        lg.Node("output", "output", "output", args=(lg.Ref("y"),)),
    ]
    graph = lg.ir.graph_from_nodes(nodes)
    return lg.Ir([lg.Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)])


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("torch.flatten", (1,), lambda x: torch.flatten(x, 1)),
        ("torch.nn.functional.relu", (), torch.relu),
        ("torch.Tensor.view", (-1,), lambda x: x.view(-1)),
        ("torch.Tensor.shape", (), lambda x: x.shape),
        ("torch.einsum", (), None),
        ("operator.add", (1,), lambda x: x + 1),
        ("torch.linalg.norm", (), torch.linalg.norm),
        ("torch.Tensor.to", (lg.Symbol("torch.float64"),), lambda x: x.double()),
    ],
)
def test_names_lead_to_functions(name, args, expected):
    rebuilt = lg.to_torch(_calling(name, *args))
    if expected is not None:
        x = torch.randn(2, 3)
        was, now = expected(x), rebuilt(x)
        assert bitwise_equal(was, now) if isinstance(was, torch.Tensor) else was == now


@pytest.mark.parametrize(
    "name",
    """
    os.system builtins.eval builtins.getattr getattr eval torch.load torch.save torch. torch.Tensor
    torch.ops.load_library torch.hub.load torch.jit.load torch.from_file torch.compile
    torch.manual_seed torch.set_default_dtype torch.utils.data.DataLoader layergraph.load
    torch.Tensor.apply_ torch.Tensor.map_ torch.Tensor.numpy torch.Tensor.tofile
    torch.Tensor.__reduce__ torch.Tensor.__class__ torch.Tensor.__dict__ torch.Tensor.__setstate__
    torch.Tensor.grad_fn torch.Tensor._backward_hooks torch.Tensor.data_ptr
    torch.Tensor.const_data_ptr torch.ops.aten.from_file torch.ops.aten.set_
    torch.ops.aten._reshape_alias torch.ops.aten._nested_view_from_buffer torch.ops.aten.save
    torch.ops.aten.__class__ torch.ops.aten.add.__init__ torch.ops.prim.device torch.ops.os.system
    torch.Tensor.register_hook torch.Tensor.backward torch.nn.functional.torch
    torch.nn.functional.math torch.nn.init.zeros_ operator.attrgetter operator.methodcaller
    """.split(),
)
def test_names_that_lead_nowhere(name):
    with pytest.raises(BuildError, match="no function is named"):
        lg.to_torch(_calling(name))


def test_every_name_leads_back_to_itself():
    functions = Functions([])
    for name in ("torch.add", "torch.Tensor.add", "torch.nn.functional.conv2d", "operator.iadd"):
        target = functions.target(name)
        found = (
            getattr(torch.Tensor, target.target) if target.op == "call_method" else target.target
        )
        assert functions.name_of(found) == name
    assert functions.name_of(torch.load) is None
    assert functions.name_of(print) is None


def test_attributes_and_methods():
    assert attribute_name("shape") == "torch.Tensor.shape"
    assert attribute_name("values") == "torch.return_types.values"
    assert attribute_name("grad_fn") is None
    assert attribute_name("__class__") is None
    assert method_name("view") == "torch.Tensor.view"
    assert method_name("shape") is None
    assert method_name("numpy") is None


def test_symbols_lead_to_dtypes_and_the_like_only():
    for name in ("torch.load", "torch.nn", "os.system", "torch.float31", "float32"):
        with pytest.raises(BuildError, match="no dtype, layout or memory format"):
            lg.to_torch(_calling("torch.Tensor.to", lg.Symbol(name)))


def test_functions_of_plugins(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    functions = Functions(
        ["torch.add", "os.path.join", "colorsys.rgb_to_hsv", "no.such", "os.none"]
    )
    assert functions.target("torch.add").target is torch.add
    assert functions.loaded == {"os.path.join": os.path.join}
    assert functions.name_of(os.path.join) == "os.path.join"
    assert functions.target("colorsys.rgb_to_hsv").target is sys.modules["colorsys"].rgb_to_hsv
    assert functions.target("os.none") is None
    assert functions.target("os.system") is None
    with pytest.raises(BuildError, match=r"'no\.such' cannot be imported"):
        functions.target("no.such")


@pytest.mark.slow
def test_no_plugin_imports_what_it_names():
    code = "import sys, layergraph as lg; from torch import nn; lg.to_ir(nn.Sequential())"
    code += "; print(sorted(m for m in ('torchvision',) if m in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_unknown_function_in_a_model_is_refused_by_name():
    class Seeds(nn.Module):
        def forward(self, x):
            return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255), torch.set_rng_state(x)

    with pytest.raises(lg.errors.CaptureError, match="set_rng_state"):
        lg.to_ir(Seeds())
