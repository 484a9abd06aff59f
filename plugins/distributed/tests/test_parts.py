"""Parts of tensors, and plans, without processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, BuildError, FileError
from layergraph_distributed import plan_of
from layergraph_distributed.agreement import Agreement
from layergraph_distributed.parts import _joined, _piece, take


@pytest.mark.parametrize("size", [0, 1, 3, 7, 8, 12])
@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 9])
def test_pieces_are_those_of_torch(size, pieces):
    indices = torch.arange(size)
    chunks = indices.chunk(pieces)
    for at in range(pieces):
        expected = chunks[at] if at < len(chunks) else indices[:0]
        found = _joined(_piece([(0, size)], pieces, at))
        assert torch.equal(take(indices, [found]), expected)


def test_pieces_of_several_ranges():
    assert _piece([(0, 3), (10, 13)], 2, 0) == [(0, 3)]
    assert _piece([(0, 3), (10, 13)], 3, 1) == [(2, 3), (10, 11)]
    assert _joined([(0, 2), (2, 3), (5, 6)]) == [(0, 3), (5, 6)]


@pytest.fixture
def ir() -> lg.Ir:
    shared = nn.Linear(4, 4)
    blocks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    return lg.to_ir(nn.Sequential(blocks, shared, shared))


def test_a_plan_travels_in_a_file(ir, tmp_path):
    plan = {"": "fully_shard", "0.*": ["colwise", "fully_shard"], "0.1": "rowwise"}
    planned = lg.annotate_plan(ir, plan)
    lg.save(planned, tmp_path / "model.json")
    found = plan_of(lg.load(tmp_path / "model.json"))
    both = ("colwise", "fully_shard")
    assert found == {"": ("fully_shard",), "0.0": both, "0.1": both}
    assert plan_of(ir) == {}
    assert plan_of(lg.annotate_plan(planned, {"0.0": "rowwise"})) == {"0.0": ("rowwise",)}
    # "*" matches a name, and the path of the model itself contains none.
    assert plan_of(lg.annotate_plan(ir, {"*": "fully_shard"})).keys() == {"0", "1", "2"}
    # Handlers ignore annotations.
    assert isinstance(lg.to_torch(planned), nn.Sequential)


def test_plans_that_are_refused(ir):
    with pytest.raises(BuildError, match=r"names '3', but no layer has such a path"):
        lg.annotate_plan(ir, {"3": "colwise"})
    with pytest.raises(ArgumentError, match="the style 'tensor' for '1'; known are colwise"):
        lg.annotate_plan(ir, {"1": "tensor"})
    with pytest.raises(ArgumentError, match="give the name of a style"):
        lg.annotate_plan(ir, {"1": ()})
    with pytest.raises(ArgumentError, match="5 is not the path"):
        lg.annotate_plan(ir, {5: "colwise"})
    with pytest.raises(ArgumentError, match="plan is a list"):
        lg.annotate_plan(ir, ["1"])
    with pytest.raises(BuildError, match="which has a different style under another path"):
        lg.annotate_plan(ir, {"1": "colwise"})
    broken = lg.annotate_plan(ir, {"0.0": "colwise"})
    broken["0.0"].data["layergraph.parallel"] = 3
    with pytest.raises(
        BuildError, match=r"implementation '0\.0', attribute 'layergraph\.parallel'"
    ):
        plan_of(broken)


def test_a_mesh_is_one_of_torch(tmp_path):
    model = nn.Linear(2, 2)
    lg.save(lg.to_ir(model), tmp_path / "model.safetensors", model.state_dict())
    with pytest.raises(ArgumentError, match="mesh is a int"):
        lg.load_model(tmp_path / "model.safetensors", mesh=3)
    with pytest.raises(ArgumentError, match="there is a plan, but no mesh"):
        lg.load_model(tmp_path / "model.safetensors", plan={"": "fully_shard"})


def test_a_function_that_distributes_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    lg.save(lg.to_ir(model), tmp_path / "model.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "model.safetensors", plan=lambda model, mesh: None)
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    add = lambda model, _: model.register_buffer("extra", torch.empty(2, device="meta"))
    with pytest.raises(BuildError, match="the plan added 'extra', and no file holds its value"):
        lg.load_model(tmp_path / "model.safetensors", plan=add)


def test_a_plan_that_removes_layers(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    lg.save(lg.to_ir(model), tmp_path / "model.safetensors", model.state_dict())

    def stage(model, mesh):
        model[0] = nn.Identity()

    again = lg.load_model(tmp_path / "model.safetensors", plan=stage)
    assert list(again.state_dict()) == ["1.weight", "1.bias"]
    assert torch.equal(again[1].weight, model[1].weight)


def test_a_plan_that_moves_layers(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    lg.save(lg.to_ir(model), tmp_path / "model.safetensors", model.state_dict())

    def stage(model, mesh):
        del model[0]  # the other layer takes its name

    with pytest.raises(BuildError, match=r"the plan replaced the layer of '0\.weight' by another"):
        lg.load_model(tmp_path / "model.safetensors", plan=stage)


def test_a_save_needs_a_group_of_processes(tmp_path):
    with pytest.raises(FileError, match=r"call torch\.distributed\.init_process_group before"):
        Agreement(tmp_path / "model.safetensors")
