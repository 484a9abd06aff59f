"""The pass ``deduplicate``: equal layers and blocks become one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Scale(nn.Module):
    """A block that reads a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    """A block of layers in a list, with a block inside, a buffer, and a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4))])
        self.norm = nn.BatchNorm1d(4)
        nn.init.normal_(self.norm.weight)
        self.scale = Scale()
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(torch.relu(self.fc(x)))
        return self.norm(self.scale(sum(head(x) for head in self.heads))) + self.shift


def model_of(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(*blocks).eval()


def deduplicated(model: nn.Module, **options: object):
    ir, state, report = lg.run_passes(
        lg.to_ir(model), [("deduplicate", options)], model.state_dict()
    )
    assert list(state) == list(model.state_dict())
    rebuilt = lg.to_torch(ir, state)
    for _ in range(2):
        x = torch.randn_like(X)
        assert bitwise_equal(rebuilt(x), model(x))
    return rebuilt, ir, state, report


def is_shared(rebuilt: nn.Module, one: str = "0", other: str = "1") -> bool:
    return rebuilt.get_submodule(one) is rebuilt.get_submodule(other)


def test_equal_blocks_are_shared(tmp_path: Path) -> None:
    block = Block()
    model = model_of(block, copy.deepcopy(block), nn.ReLU(), copy.deepcopy(block), Block())
    rebuilt, ir, state, report = deduplicated(model)
    assert [each.site.node for each in report.applied] == ["_1", "_3"]
    assert is_shared(rebuilt, "0", "1")
    assert is_shared(rebuilt, "0.heads.1", "3.heads.1")
    assert not is_shared(rebuilt, "0", "4")
    size = sum(each.numel() for each in block.parameters())
    assert sum(each.numel() for each in rebuilt.parameters()) == 2 * size
    lg.save(ir, tmp_path / "model.safetensors", state)
    again = lg.load_model(tmp_path / "model.safetensors")
    assert is_shared(again, "0", "3")
    assert bitwise_equal(again(X), model(X))


def test_a_block_with_one_other_tensor_shares_what_is_equal_inside() -> None:
    other = copy.deepcopy(block := Block())
    other.fc.bias.data[0] += 1
    rebuilt, _, _, report = deduplicated(model_of(block, other))
    assert not is_shared(rebuilt)
    assert is_shared(rebuilt, "0.heads.1", "1.heads.1")
    assert is_shared(rebuilt, "0.scale", "1.scale")
    assert "shares the layer '0.norm'" in str(report)


def test_the_types_to_share() -> None:
    model = model_of(block := Block(), copy.deepcopy(block))
    for types, names in {
        "linear": ["fc", "heads.0", "heads.1.1"],
        "linear, batchnorm*": ["fc", "heads.0", "heads.1.1", "norm"],
        "sequential": ["heads.1"],
        "nothing": [],
    }.items():
        rebuilt, *_ = deduplicated(copy.deepcopy(model), types=types)
        shared = [
            name
            for name, _ in block.named_modules()
            if name and is_shared(rebuilt, f"0.{name}", f"1.{name}")
        ]
        assert [each for each in shared if each != "heads.1.0" or types != "sequential"] == (
            [*names, "heads.1.1"] if types == "sequential" else names
        )
    assert is_shared(deduplicated(model, types=["module"])[0])


def _train(block: Block) -> None:
    block.norm.train()


def _buffer(block: Block) -> None:
    block.shift += 1


def _negative_zero(block: Block) -> None:
    block.fc.bias.data[:] = -0.0


def _attribute(block: Block) -> None:
    block.norm.eps = 1e-3


def _frozen(block: Block) -> None:
    block.fc.weight.requires_grad_(requires_grad=False)


def _graph(block: Block) -> None:
    block.heads[1][0] = nn.Identity()


def _tied(block: Block) -> None:
    block.heads[0].weight = block.fc.weight


@pytest.mark.parametrize(
    "change", [_train, _buffer, _negative_zero, _attribute, _frozen, _graph, _tied]
)
def test_blocks_that_differ_stay_apart(change) -> None:
    block = Block()
    block.fc.bias.data[:] = 0.0
    if change is _tied:
        block.heads[0].weight.data = block.fc.weight.data.clone()
    other = copy.deepcopy(block)
    assert is_shared(deduplicated(model_of(block, copy.deepcopy(other)))[0])
    model = model_of(block, other)
    change(other)
    rebuilt, *_ = deduplicated(model)
    assert not is_shared(rebuilt)


def test_annotations_keep_blocks_apart() -> None:
    model = model_of(block := Block(), copy.deepcopy(block))
    ir = lg.to_ir(model)
    edit = lg.edit(ir, model.state_dict())
    edit.annotate("1.fc", {"acme.place": "left"})
    _, _, report = lg.run_passes(edit.ir, [("deduplicate", {"types": "module"})], edit.state)
    assert [each.text for each in report.applied] == ["shares the layer '0.scale'"]


class Counter(nn.Module):
    """A block that changes its own buffer in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x * self.count


def test_blocks_that_change_their_tensors_stay_apart() -> None:
    model = nn.Sequential(Counter(), Counter()).eval()
    state = copy.deepcopy(model.state_dict())
    ir, state, report = lg.run_passes(lg.to_ir(model), ["deduplicate"], state)
    assert not report.applied
    assert bitwise_equal(lg.to_torch(ir, state)(X), model(X))


def test_layers_with_hidden_state_stay_apart() -> None:
    snntorch = pytest.importorskip("snntorch")
    neurons = [snntorch.Leaky(beta=0.9, init_hidden=True) for _ in range(2)]
    model = nn.Sequential(neurons[0], nn.Linear(4, 4), neurons[1]).eval()
    ir = lg.to_ir(model, (X,))
    _, _, report = lg.run_passes(ir, ["deduplicate"], model.state_dict())
    assert not report.applied


def test_in_training_mode_nothing_is_shared() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(block, copy.deepcopy(block))
    _, _, report = lg.run_passes(lg.to_ir(model), ["deduplicate"], model.state_dict())
    assert not report.applied


def test_the_layers_of_a_new_transformer_become_one() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = model_of(*(copy.deepcopy(layer) for _ in range(4)))
    x = torch.randn(2, 5, 8)
    opened, state, _ = lg.run_passes(lg.to_ir(model), ["open-leaves"], model.state_dict())
    ir, state, _ = lg.run_passes(opened, ["deduplicate"], before := state)
    rebuilt = lg.to_torch(ir, state)
    size = sum(each.numel() for each in layer.parameters())
    assert all(is_shared(rebuilt, "0", other) for other in "123")
    assert sum(each.numel() for each in rebuilt.parameters()) <= size  # its norms are equal, too
    assert bitwise_equal(rebuilt(x), lg.to_torch(opened, before)(x))


def test_equal_layers_are_shared() -> None:
    one, equal, other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    equal.load_state_dict(one.state_dict())
    rebuilt, _, _, report = deduplicated(model_of(one, nn.ReLU(), equal, other))
    assert len(report.applied) == 1
    assert is_shared(rebuilt, "0", "2")
    assert not is_shared(rebuilt, "0", "3")
