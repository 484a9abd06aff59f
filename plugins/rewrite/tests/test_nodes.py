"""Edits of nodes compute what the same edits of the torch model compute."""

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph_rewrite import VALUE, Edit, EditError, function, layer


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x * 2
        return self.linear(x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + y


class NestedDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Dropout())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


def edited(model: nn.Module, *args: torch.Tensor) -> Edit:
    ir, state = lg.to_ir(model, args), model.state_dict()
    before = copy.deepcopy(ir)
    edit = lg.edit(ir, state)
    assert edit.ir == ir == before
    return edit


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", [True, False])
def test_insert_before_reads_the_argument_of_each_mode(mode: bool) -> None:
    model = Modes()
    edit = edited(model, X)
    edit.insert_before("linear", layer("relu"))
    rebuilt = lg.to_torch(edit.ir, edit.state).train(mode)
    assert torch.equal(rebuilt(-X), model.linear(torch.relu(-X * 2 if mode else -X)))


@pytest.mark.parametrize("mode", [True, False])
def test_replace_takes_the_arguments_of_each_mode(mode: bool) -> None:
    model = Modes()
    edit = edited(model, X)
    edit.replace(
        "linear",
        layer("linear", in_features=3, out_features=3, tensors=dict(model.linear.state_dict())),
    )
    assert list(edit.state) == ["linear.weight", "linear.bias"]
    rebuilt = lg.to_torch(edit.ir, edit.state).train(mode)
    assert torch.equal(rebuilt(X), model.train(mode)(X))


@pytest.mark.parametrize("mode", [True, False])
def test_remove_passes_on_the_argument_of_each_mode(mode: bool) -> None:
    edit = edited(Modes(), X)
    edit.remove("linear")
    rebuilt = lg.to_torch(edit.ir, edit.state).train(mode)
    assert torch.equal(rebuilt(X), X * 2 if mode else X)
    assert list(edit.state) == []


def test_an_edge_of_one_mode_gets_a_call_in_that_mode_only() -> None:
    model = Modes()
    edit = edited(model, X)
    edit.insert_on(":mul", "linear", function("torch.neg")(VALUE))
    rebuilt = lg.to_torch(edit.ir, edit.state)
    assert torch.equal(rebuilt.train()(X), model.linear(-(X * 2)))
    assert torch.equal(rebuilt.eval()(X), model.linear(X))


def test_a_value_of_one_mode_is_refused_in_the_other() -> None:
    edit = edited(Modes(), X)
    before = edit.ir
    with pytest.raises(EditError, match="mul"):
        edit.insert_after("linear", function("torch.add")(VALUE, edit.call(":mul")))
    with pytest.raises(EditError, match="mul"):
        edit.set_outputs(":mul")
    with pytest.raises(EditError, match="mul"):
        edit.set_arguments("linear", lg.ir.Ref("mul"))
    assert edit.ir == before


def test_a_nested_container_that_is_no_chain_any_more_becomes_a_module() -> None:
    model = NestedDropout()
    edit = edited(model, X)
    edit.insert_after("block.0", function("torch.neg")(VALUE))
    rebuilt = lg.to_torch(edit.ir, edit.state).eval()
    assert torch.equal(rebuilt(X), torch.relu(-model.block[0](X)))
    assert list(edit.state) == list(model.state_dict())


def test_a_nested_container_that_is_a_chain_keeps_its_type() -> None:
    model = NestedDropout()
    edit = edited(model, X)
    edit.remove("block.2")
    rebuilt = lg.to_torch(edit.ir, edit.state)
    assert type(rebuilt.block) is nn.Sequential
    assert torch.equal(rebuilt(X), model.eval()(X))


def test_an_input_does_not_move() -> None:
    edit = edited(TwoInputs(), X, X)
    with pytest.raises(EditError, match="order of inputs"):
        edit.move(":x", after=":y")


def test_replacing_one_of_two_calls_leaves_the_layer_to_the_other() -> None:
    class Block(nn.Module):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.act = act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Tanh()
            self.block = Block(self.act)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(self.act(x) * 2)

    edit = edited(Shared(), X)
    edit.replace(":act", layer("sigmoid"))
    rebuilt = lg.to_torch(edit.ir, edit.state)
    assert torch.equal(rebuilt(X), torch.tanh(torch.sigmoid(X) * 2))


def test_gradients_and_files_follow(tmp_path) -> None:
    model = NestedDropout().eval()
    edit = edited(model, X)
    edit.replace("block.1", layer("gelu"))
    path = tmp_path / "model.safetensors"
    lg.save(edit.ir, path, edit.state)
    rebuilt = lg.load_model(path)
    wanted = nn.Sequential(model.block[0], nn.GELU())
    rebuilt(X).sum().backward()
    wanted(X).sum().backward()
    assert torch.equal(rebuilt(X), wanted(X))
    assert torch.equal(rebuilt.block[0].weight.grad, model.block[0].weight.grad)


def test_a_refused_removal_changes_nothing() -> None:
    edit = edited(TwoInputs(), X, X)
    before = edit.ir
    with pytest.raises(EditError, match="cannot read"):
        edit.remove("linear", by=":add")
    with pytest.raises(EditError):
        edit.replace_uses(":x", ":add")
    with pytest.raises(EditError, match="no node"):
        edit.remove(":nothing")
    assert edit.ir == before


class Reads(nn.Module):
    """Its graph reads a tensor of a layer that it also calls, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x) * self.linear.bias
        self.mean = self.mean * 0.9 + y.mean(0).detach()
        return y - self.mean


def test_an_outlined_composite_takes_the_tensors_of_its_own_layers_along() -> None:
    model = Reads()
    edit = edited(copy.deepcopy(model), X)
    nodes = [call.site.node for call in edit if call.type not in ("input", "output")]
    edit.outline([f":{each}" for each in nodes if "mean" not in each][:3], "part")
    rebuilt = lg.to_torch(edit.ir, edit.state)
    assert "part.linear.bias" in rebuilt.state_dict()
    for _ in range(2):
        assert torch.equal(rebuilt(X), model(X))


def test_an_outlined_composite_gets_the_tensors_of_other_layers_as_inputs() -> None:
    model = Reads()
    edit = edited(copy.deepcopy(model), X)
    edit.outline([":mean", ":mul_1"], "part")
    assert "mean" in edit.ir["root"].nodes
    rebuilt = lg.to_torch(edit.ir, edit.state)
    for _ in range(2):
        assert torch.equal(rebuilt(X), model(X))
    with pytest.raises(EditError, match="nothing to outline"):
        edit.outline([":mean"], "other")


def test_a_composite_cannot_set_a_tensor_outside() -> None:
    edit = edited(Reads(), X)
    before = edit.ir
    last = next(call for call in edit if call.type == "state" and call.args)
    with pytest.raises(EditError, match=f"'{last.site.node}' sets a tensor of a layer outside"):
        edit.outline([last], "part")
    assert edit.ir == before


def test_the_output_stays_last() -> None:
    class Checks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            assert x.shape[0] == 2
            return y

    edit = edited(Checks(), X)
    name = next(call.site.node for call in edit if call.function == "torch.Tensor.mul")
    guard = next(call.site.node for call in edit if call.function == "layergraph.assume")
    for moved, after in (("output", name), (guard, "output")):
        with pytest.raises(EditError, match="the output stays last"):
            edit.move(f":{moved}", after=f":{after}")


class OneRow(nn.Module):
    """Its block reads the rank of a value that has another rank on another way."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return y.unsqueeze(0) if x.dim() == 1 else y.mean(0, keepdim=True)

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x.squeeze(0) if x.shape[0] == 1 else x)


@pytest.mark.parametrize("how", ["flatten", "inline"])
def test_a_composite_that_is_inlined_keeps_the_guards_of_its_inputs(how: str) -> None:
    model, ir = OneRow(), lg.to_ir(OneRow(), (X,))
    edit = lg.edit(ir, model.state_dict())
    if how == "inline":
        edit.inline("block")
    rebuilt = lg.to_torch(ir.flatten() if how == "flatten" else edit.ir, model.state_dict())
    assert torch.equal(rebuilt(X), model(X))
    with pytest.raises(AssumptionError, match="dimensions"):
        rebuilt(X[:1])
