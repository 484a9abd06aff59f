from __future__ import annotations

import ast
import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError
from layergraph.ir import Implementation, Node, Ref, TensorSpec, graph_from_nodes
from layergraph_source import SourceError, to_source
from plugins.source.tests.models import MODELS, Block, Kept, Modes, Tensors, Tied, Tower
from plugins.source.tests.sources import imported, in_new_interpreter, loaded, same, written

NAMES = list(MODELS)


def made(name: str) -> tuple[nn.Module, list[tuple[Any, ...]]]:
    make, calls = MODELS[name]
    torch.manual_seed(1)
    return make(), copy.deepcopy(calls)


@pytest.fixture(scope="module")
def irs() -> dict[str, lg.Ir]:
    return {}


def captured(name: str, irs: dict[str, lg.Ir]) -> tuple[nn.Module, list[tuple[Any, ...]], lg.Ir]:
    model, calls = made(name)
    if name not in irs:
        irs[name] = lg.to_ir(model, calls[0])
    return model, calls, irs[name]


def run(model: nn.Module, args: tuple[Any, ...]) -> Any:
    torch.manual_seed(0)
    return model(*args)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_source_computes_the_same_bits(
    name: str, training: bool, irs: dict[str, lg.Ir]
) -> None:
    model, calls, ir = captured(name, irs)
    again = loaded(to_source(ir), model)
    assert list(again.state_dict()) == list(model.state_dict())
    for args in calls:
        one, other = copy.deepcopy(model).train(training), copy.deepcopy(again).train(training)
        given = copy.deepcopy(args)
        expected, found = run(one, args), run(other, given)
        assert same(expected, found)
        assert same(list(args), list(given))
        if isinstance(expected, torch.Tensor) and expected.requires_grad:
            expected.sum().backward()
            found.sum().backward()
        for (key, first), (_, second) in zip(
            one.named_parameters(), other.named_parameters(), strict=True
        ):
            assert first.requires_grad == second.requires_grad
            assert (first.grad is None) == (second.grad is None), key
            assert first.grad is None or torch.equal(first.grad, second.grad), key
        assert same(dict(one.state_dict()), dict(other.state_dict()))
        with torch.no_grad():
            assert same(run(one, args), run(other, args))


def test_the_source_runs_where_there_is_no_layergraph(
    tmp_path: Path, irs: dict[str, lg.Ir]
) -> None:
    for name in ("tower", "modes", "deciding", "looping", "tensors", "bodies"):
        model, calls, ir = captured(name, irs)
        for training in (True, False):
            found = in_new_interpreter(to_source(ir), tmp_path, model.state_dict(), calls, training)
            one = copy.deepcopy(model).train(training)
            for args, (output, grads) in zip(calls, found, strict=True):
                expected = run(one, args)
                assert same(expected.detach(), output)
                one.zero_grad()
                if expected.requires_grad:
                    expected.sum().backward()
                assert not grads or same([each.grad for each in one.parameters()], grads)


@pytest.mark.parametrize("name", ["layer", "sequential", "tower", "tied", "transformer", "lstm"])
def test_the_ir_of_the_source_is_the_ir(name: str, irs: dict[str, lg.Ir]) -> None:
    model, calls, ir = captured(name, irs)
    again = lg.to_ir(loaded(to_source(ir), model), calls[0])
    assert not lg.diff(ir, again), lg.diff(ir, again)


@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_laid_out_as_formatters_do(
    name: str, irs: dict[str, lg.Ir], tmp_path: Path
) -> None:
    path = tmp_path / "net.py"
    path.write_text(to_source(captured(name, irs)[2]))
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        "--line-length",
        "100",
        "--diff",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout


def test_the_source_is_the_same_under_any_hash_seed(tmp_path: Path) -> None:
    lg.save(lg.to_ir(Tensors(), (torch.rand(2, 3),)), tmp_path / "m.json")
    program = f"import layergraph as lg; print(lg.to_source(lg.load({str(tmp_path / 'm.json')!r})))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**__import__("os").environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_equal_blocks_are_one_class_with_parameters_and_a_loop() -> None:
    text = to_source(lg.to_ir(Tower(), (torch.rand(2, 4),)))
    assert text.count("class ") == 2
    assert "nn.ModuleList([Block(8) for _ in range(3)])" in text
    assert "self.last = Block(6)" in text
    assert "for block in self.blocks:\n            x = block(x)" in text


def test_modes_that_differ_are_told_by_the_mode() -> None:
    text = to_source(lg.to_ir(Modes(), (torch.rand(2, 3),)))
    assert "self.training" in text
    assert "def forward(self, x):" in text


def test_a_rewritten_model_has_a_class_again() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.ReLU()).eval()
    ir, state, _ = lg.run_passes(lg.to_ir(model), ["remove-dropout"], model.state_dict())
    again = imported(to_source(ir)).Net()
    again.load_state_dict(state)
    x = torch.rand(2, 3)
    assert torch.equal(again(x), model(x))
    assert "Dropout" not in to_source(ir)


def test_weights_share_memory_and_modes_are_kept() -> None:
    tied = written(Tied(), torch.tensor([1]))
    assert tied.head.weight is tied.embed.weight
    assert tied.again is tied.inner["a b"]
    kept = written(Kept(), torch.rand(4, 3))
    assert not kept.train().norm.training
    assert kept.drop.training


class Rotary(nn.Module):
    """Frequencies that are made again after a cast to a narrow dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", torch.linspace(0, 1, 4), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if self.bands.itemsize < 4:
            self.register_buffer("bands", torch.linspace(0, 1, 4), persistent=False)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.bands


def test_buffers_that_do_not_narrow_keep_their_dtype() -> None:
    model = nn.Sequential(Rotary())
    again = loaded(to_source(lg.to_ir(model, (torch.randn(2, 4),))), model)
    for cast in ("half", "double", "bfloat16", "float"):
        one, other = (dict(getattr(each, cast)().named_buffers()) for each in (model, again))
        assert same(one, other)


def test_constants_move_and_keep_their_dtype() -> None:
    model = written(Tensors(), torch.rand(2, 3))
    assert model.small.dtype is torch.float16
    constants = [each for name, each in model.named_buffers() if "constant" in name]
    assert [each.dtype for each in constants] == [torch.float32]
    moved = model.to(torch.float64)
    assert [e.dtype for n, e in moved.named_buffers() if "constant" in n] == [torch.float32]
    assert all(each.is_meta for each in model.to("meta").buffers())


def test_a_model_of_one_dtype_is_cast_as_a_whole() -> None:
    model = nn.Sequential(Block(2, 3), Block(2, 3)).to(torch.bfloat16)
    x = torch.rand(2, 2, dtype=torch.bfloat16)
    again = written(model, x)
    assert same(again(x), model(x))
    assert {each.dtype for each in again.parameters()} == {torch.bfloat16}


def test_a_guard_raises_with_the_line_of_the_original() -> None:
    class Guarded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[0] if x.shape[0] > 2 else x

    again = written(Guarded(), torch.rand(3, 2))
    assert torch.equal(again(torch.ones(4, 2)), torch.ones(2))
    with pytest.raises(Exception, match=r"x\.shape\[0\] > 2"):
        again(torch.ones(2, 2))


HOSTILE = "x'\"\n    import os; os.system('touch /tmp/s7-hostile')\n#\\"


def hostile(*, in_names: bool) -> lg.Ir:
    """An IR with text of a stranger in each place that takes any."""
    name = HOSTILE.replace(".", "-") if in_names else "plain"
    child, tensor, step = f"c{name}", f"t{name}", f"n{name}"
    nodes = [
        Node("x", "input", f"x{name}"),
        Node(step, "function", "torch.zeros", (1,)),
        Node("a", "function", "layergraph.assume", (Ref(step), HOSTILE, HOSTILE)),
        Node("c", "conv2d", child, (Ref("x"),)),
        Node("s", "state", tensor),
        Node("o", "output", "o", ({HOSTILE: (Ref("s"), Ref("c"))},)),
    ]
    graph = graph_from_nodes(nodes)
    root = Implementation(
        "module",
        name="root",
        nodes=graph.nodes,
        edges=graph.edges,
        tensors={tensor: TensorSpec("buffer", (1,))},
        children={child: child},
    )
    data = {"in_channels": 1, "out_channels": 1, "kernel_size": 1}
    return lg.Ir([root, Implementation("conv2d", data, name=child)])


@pytest.mark.parametrize("in_names", [True, False])
def test_text_of_a_stranger_never_becomes_code(in_names: bool) -> None:
    text = to_source(hostile(in_names=in_names))
    tree = ast.parse(text)
    names = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    attributes = {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}
    assert not {"os", "system"} & (names | attributes)
    literals = {each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)}
    assert HOSTILE in literals
    model = imported(text).Net()
    assert len(model.state_dict()) == 3
    with pytest.raises(Exception, match="at capture"):
        model(torch.zeros(1, 1, 2, 2))


def test_a_name_that_no_argument_has_is_refused() -> None:
    ir = hostile(in_names=False)
    ir["root"].nodes["a"].kwargs["otherwise=None); import os; (x"] = 1
    with pytest.raises(lg.errors.LayergraphError):
        to_source(ir)


@pytest.mark.parametrize("name", ["1a", "class", "a b", "a\nb", "", "nn"])
def test_a_name_that_no_class_has_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        to_source(lg.to_ir(nn.ReLU()), name)


def test_all_that_source_cannot_say_is_listed() -> None:
    class Local(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            return grads[0]

    class Calling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Local.apply(x)

    model = nn.Sequential(Calling(), nn.ReLU(), Calling())
    ir = lg.to_ir(model, (torch.rand(2),))
    with pytest.raises(SourceError) as raised:
        to_source(ir)
    assert len(raised.value.problems) == 2
    assert "implementation '0'" in str(raised.value)
    assert "implementation '2'" in str(raised.value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from layergraph_source.files import write

    path = tmp_path / "net.py"
    write(lg.to_ir(nn.ReLU()), path)
    assert imported(path.read_text()).Net()(torch.tensor(-1.0)) == 0
    path.write_text("before")
    with pytest.raises(ArgumentError):
        write(lg.to_ir(nn.ReLU()), path, {})
    with pytest.raises(ArgumentError):
        write(lg.to_ir(nn.ReLU()), path, class_name="1")
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["net.py"]


@dataclass
class Found:
    first: torch.Tensor
    second: torch.Tensor | None = None


class Finding(nn.Module):
    def forward(self, x: torch.Tensor) -> Found:
        return Found(x + 1)


def test_an_output_has_the_fields_of_the_original_one() -> None:
    x = torch.randn(2, 3)
    result = imported(to_source(lg.to_ir(Finding(), (x,)))).Net()(x)
    assert torch.equal(result.first, x + 1)
    assert result.second is None
    assert torch.equal(result.copy().first, x + 1)
