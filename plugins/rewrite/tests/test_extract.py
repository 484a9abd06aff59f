"""The part between two cuts gives the activations that the whole model has there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.ir import check
from layergraph.testing import bitwise_equal
from layergraph_rewrite import EditError

torchvision = pytest.importorskip("torchvision.models")


class Hooks:
    """The first inputs and outputs of modules, as they are when the module begins and ends."""

    def __init__(self, model, names):
        self.inputs, self.outputs = {}, {}
        self.handles = []
        for name in names:
            module = model.get_submodule(name)
            self.handles += [
                module.register_forward_pre_hook(self._before(name)),
                module.register_forward_hook(self._after(name)),
            ]

    def _before(self, name):
        def hook(module, args):
            self.inputs[name] = args[0].detach().clone()

        return hook

    def _after(self, name):
        def hook(module, args, output):
            self.outputs[name] = copy.deepcopy(_detached(output))

        return hook


def _detached(value):
    if isinstance(value, tuple):
        return tuple(_detached(each) for each in value)
    return value.detach() if isinstance(value, torch.Tensor) else value


def without_dropout(model):
    for each in model.modules():
        if isinstance(each, nn.Dropout):
            each.p = 0.0
        for name in ("dropout", "p", "stochastic_depth_prob"):
            if isinstance(getattr(each, name, None), float):
                setattr(each, name, 0.0)
    return model


def assert_extracted(model, example, start, end, *, modes=(False, True), file=None):
    """Compare the part with what hooks of the whole model see, in both modes."""
    model = without_dropout(model)
    ir = lg.to_ir(model) if file is None or example is None else lg.to_ir(model, (example(),))
    part, state = lg.extract(ir, model.state_dict(), inputs=start, outputs=end)
    check(part)
    keys = set(model.state_dict())
    assert set(state) <= keys
    path = file / "part.safetensors"
    lg.save(part, path, state)
    for mode in modes:
        whole = copy.deepcopy(model).train(mode)
        alone = lg.load_model(path).train(mode)
        assert list(alone.state_dict()) == list(state)
        hooks = Hooks(whole, {start, end})
        for _ in range(2):
            with torch.no_grad():
                whole(example())
                got = alone(hooks.inputs[start])
            torch.testing.assert_close(got, hooks.outputs[end], rtol=0, atol=0)
        buffers = dict(whole.named_buffers())
        for name, each in alone.named_buffers():
            torch.testing.assert_close(each, buffers[name], rtol=0, atol=0)
    return state


def image(size=64):
    return lambda: torch.randn(2, 3, size, size)


CASES = [
    ("resnet18", "layer2", "layer4", 64),
    ("resnet18", "layer2.0", "layer3.1.bn1", 64),
    ("resnet50", "layer1.1", "layer3.0.conv1", 64),
    ("wide_resnet50_2", "layer4", "fc", 64),
    ("resnext50_32x4d", "maxpool", "layer1.2.bn3", 64),
    ("densenet121", "features.denseblock2", "features.transition2", 64),
    ("vgg11_bn", "features.4", "classifier.0", 64),
    ("vgg16", "features.10", "features.20", 64),
    ("alexnet", "features.3", "classifier.6", 96),
    ("squeezenet1_1", "features.4", "features.10", 64),
    ("mobilenet_v2", "features.3", "features.17", 64),
    ("mobilenet_v3_small", "features.2", "features.9", 64),
    ("mnasnet0_5", "layers.8", "layers.12", 64),
    ("shufflenet_v2_x0_5", "stage3", "conv5", 64),
    ("regnet_y_400mf", "trunk_output.block2", "trunk_output.block4", 64),
    ("efficientnet_b0", "features.2", "features.5", 64),
    ("convnext_tiny", "features.3", "features.5", 64),
    ("googlenet", "inception3a", "inception4a", 64),
]


@pytest.mark.parametrize(("name", "start", "end", "size"), CASES)
def test_of_torchvision(tmp_path, name, start, end, size):
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision, name)(num_classes=5, **options)
    modes = (False, True)
    state = assert_extracted(model, image(size), start, end, modes=modes, file=tmp_path)
    assert state
    assert len(state) < len(model.state_dict())


class UNet(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace)
        )
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace))
        self.up = nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        y = self.up(self.middle(self.pool(skip)))
        return self.head(torch.cat([skip, y], 1))


def test_a_skip_over_the_cut_is_refused_by_name_and_works_where_both_are_given(tmp_path):
    model = UNet()
    ir, state = lg.to_ir(model), model.state_dict()
    with pytest.raises(EditError, match="reads the input 'x' of the model too"):
        lg.extract(ir, state, inputs="middle", outputs="head")
    assert_extracted(UNet(), image(8), "middle", "up", file=tmp_path)
    part, own = lg.extract(ir, state, inputs=["middle", "pool"], outputs=["head", "pool"])
    hooks = Hooks(model, ["middle", "pool", "head"])
    model(torch.randn(1, 3, 8, 8))
    got = lg.to_torch(part, own)(hooks.inputs["middle"], hooks.inputs["pool"])
    assert isinstance(got, tuple)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("cuts", [("down", "middle"), ("down.1", "middle.0"), ("pool", "middle.1")])
def test_changes_in_place_around_the_cut(tmp_path, inplace, cuts):
    assert_extracted(UNet(inplace), image(8), *cuts, file=tmp_path)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        z = self.b(y)
        z += 1
        y.mul_(2)
        return self.c(y + z)


@pytest.mark.parametrize(
    ("start", "end"), [("a", "c"), ("b", "b"), ("a", "a"), ("a", "b"), ("b", "c")]
)
def test_a_value_is_that_of_its_layer_before_later_changes(start, end):
    """An output is what the model has there in the end, or what its layer gave."""
    model = InPlace()
    part, state = lg.extract(lg.to_ir(model), model.state_dict(), inputs=start, outputs=end)
    hooks = Hooks(model, {start, end})
    model(torch.randn(3, 4))
    got = lg.to_torch(part, state)(hooks.inputs[start])
    assert torch.equal(got, hooks.outputs[end])


class ByView(InPlace):
    """A view that no value of the part reads changes what they read."""

    def forward(self, x):
        y = self.a(x)
        view = y.view(-1)
        z = self.b(y)
        view.mul_(2)
        return self.c(y + z)


def test_changes_through_views():
    model = ByView()
    ir, state, x = lg.to_ir(model), model.state_dict(), torch.randn(3, 4)
    for start in (None, "a"):
        part, own = lg.extract(ir, state, inputs=start, outputs="c")
        assert torch.equal(lg.to_torch(part, own)(x), model(x))
    with pytest.raises(EditError, match="'mul_', which the part leaves out, changes 'view'"):
        lg.extract(ir, state, inputs="b", outputs="c")
    part, own = lg.extract(ir, state, inputs="b", outputs="b")
    assert torch.equal(lg.to_torch(part, own)(x), model.b(x))


def test_changes_before_the_cut_are_in_the_input():
    class Before(InPlace):
        def forward(self, x):
            y = self.a(x)
            y.view(-1).mul_(2)
            return self.c(self.b(y) + y)

    model = Before()
    part, own = lg.extract(lg.to_ir(model), model.state_dict(), inputs="b", outputs="c")
    x = torch.randn(3, 4)
    assert torch.equal(lg.to_torch(part, own)(x), model.c(model.b(x) + x))


def test_recurrent_layers_whose_outputs_are_tuples(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Linear(3, 4), nn.LSTM(4, 5)
            self.gru, self.head = nn.GRU(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            y, (h, c) = self.rnn(self.embed(x))
            y, _ = self.gru(y)
            return self.head(y), h, c

    def example():
        return torch.randn(6, 2, 3)

    assert_extracted(Net(), example, "rnn", "rnn", file=tmp_path)
    assert_extracted(Net(), example, "rnn", "gru", file=tmp_path)
    assert_extracted(Net(), example, "gru", "head", file=tmp_path)


def test_transformers(tmp_path):
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(encoder, 3, enable_nested_tensor=False)

    def example():
        return torch.randn(2, 5, 8)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = model, nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.inner(x))

    assert_extracted(Net(), example, "inner", "head", file=tmp_path)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("Bert", "encoder.layer.1", "encoder.layer.2"),
        ("Bert", "encoder.layer.0.attention.output", "encoder.layer.1.intermediate"),
        ("GPT2", "h.1.mlp", "h.1.mlp"),
    ],
)
def test_of_transformers(tmp_path, name, start, end):
    transformers = pytest.importorskip("transformers")
    if name == "Bert":
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            vocab_size=50, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(
            n_embd=16, n_layer=3, n_head=2, vocab_size=50, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0,
        )  # fmt: skip
    model = getattr(transformers, f"{name}Model")(config).eval()
    ids = torch.randint(0, 50, (2, 7))
    ir = lg.to_ir(model, (ids,))
    try:
        part, state = lg.extract(ir, model.state_dict(), inputs=start, outputs=end)
    except EditError as error:
        assert "too; add it to the inputs" in str(error)  # noqa: PT017 the mask is a skip
        return
    hooks = Hooks(model, {start, end})
    with torch.no_grad():
        model(ids)
        got = lg.to_torch(part, state).eval()(hooks.inputs[start])
    torch.testing.assert_close(got, hooks.outputs[end], rtol=0, atol=0)


def test_inputs_and_outputs_of_the_model_are_cuts():
    model = UNet().eval()
    x = torch.randn(2, 3, 8, 8)
    ir, state = lg.to_ir(model), model.state_dict()
    part, own = lg.extract(ir, state)
    assert torch.equal(lg.to_torch(part, own).eval()(x), model(x))
    part, own = lg.extract(ir, state, outputs="pool")
    assert list(own) == [key for key in state if key.startswith("down")]
    assert torch.equal(lg.to_torch(part, own).eval()(x), model.pool(model.down(x)))
    part, own = lg.extract(ir, state, inputs=":x", outputs="middle")
    assert torch.equal(lg.to_torch(part, own).eval()(x), model.middle(model.pool(model.down(x))))
    part, own = lg.extract(ir, state, inputs="head")
    y = torch.randn(2, 8, 8, 8)
    assert torch.equal(lg.to_torch(part, own).eval()(y), model.head(y))


def test_inputs_come_in_the_given_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, y):
            return self.c(self.a(x) - self.b(y))

    model = Two()
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    for cuts, args in ((["a", "b"], (x, y)), (["b", "a"], (y, x)), ([":y", "a"], (y, x))):
        part, state = lg.extract(lg.to_ir(model), model.state_dict(), inputs=cuts)
        assert torch.equal(lg.to_torch(part, state)(*args), model(x, y)), cuts
    with pytest.raises(EditError, match="the input 'y'"):
        lg.extract(lg.to_ir(model), model.state_dict(), inputs="a")


def test_a_cut_in_a_shared_composite_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            return self.head(self.body(self.body(x)))

    model = Twice()
    with pytest.raises(EditError, match="2 nodes call"):
        lg.extract(lg.to_ir(model), model.state_dict(), inputs="body.1", outputs="head")
    with pytest.raises(EditError, match="2 nodes call"):
        lg.extract(lg.to_ir(model), model.state_dict(), outputs="body")


class Grad(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        with torch.no_grad():
            y = self.b(y)
        return self.c(y)


@pytest.mark.parametrize(
    ("start", "end"), [("a", "c"), ("b", "b"), ("b", "c"), ("c", "c"), ("a", "a")]
)
def test_regions_stay(start, end):
    model = Grad()
    ir = lg.to_ir(model, (torch.randn(2, 4),))
    part, state = lg.extract(ir, model.state_dict(), inputs=start, outputs=end)
    alone = lg.to_torch(part, state)
    x = torch.randn(3, 4, requires_grad=True)
    value = x
    for name in "abc"["abc".index(start) : "abc".index(end) + 1]:
        with torch.set_grad_enabled(name != "b"):
            value = getattr(model, name)(value)
    got = alone(x)
    assert torch.equal(got, value)
    assert got.requires_grad == value.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "nothing"}, "nothing"),
        ({"outputs": ":output"}, "is the output"),
        ({"inputs": "head", "outputs": "down"}, "input 'x'"),
        ({"inputs": ["down", "nothing"]}, "nothing"),
    ],
)
def test_cuts_that_cannot_be(options, message):
    model = UNet()
    with pytest.raises(EditError, match=message):
        lg.extract(lg.to_ir(model), model.state_dict(), **options)


def test_the_whole_stays_as_it_was():
    model = UNet()
    ir, state = lg.to_ir(model), model.state_dict()
    before = ir.to_dict()
    _, own = lg.extract(ir, state, inputs="pool", outputs="middle")
    assert ir.to_dict() == before
    assert list(own) == ["middle.0.weight", "middle.0.bias"]
    assert own["middle.0.weight"] is state["middle.0.weight"]


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(self.act(self.first(x)))


class Pair(Inner):
    def forward(self, x):
        y = super().forward(x)
        return y, y + 1


class Whole(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.stem, self.block = nn.Linear(4, 4), nn.Sequential(block)

    def forward(self, x):
        y = self.block(self.stem(x))
        return sum(y) if isinstance(y, tuple) else y * 2


@pytest.mark.parametrize("block", [Inner, Pair])
@pytest.mark.parametrize("end", ["block", "block.0", ["block.0", "block.0.act"]])
def test_a_cut_ends_at_a_composite_around_its_beginning(block, end, tmp_path):
    model = Whole(block()).eval()
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    part, state = lg.extract(ir, model.state_dict(), inputs="block.0.act", outputs=end)
    assert list(state) == ["block.0.last.weight", "block.0.last.bias"]
    lg.save(part, tmp_path / "part.safetensors", state)
    alone = lg.load_model(tmp_path / "part.safetensors")
    for _ in range(2):
        x = torch.randn(3, 4)
        hidden = model.block[0].act(x)
        y = model.block[0].last(hidden)
        wanted = (y, y + 1) if block is Pair else y
        assert bitwise_equal(alone(x), (wanted, hidden) if isinstance(end, list) else wanted)


KEPT = torch.tensor([[1] * 7, [0] * 2 + [1] * 5])


@pytest.mark.parametrize("masks", [[], [KEPT, torch.ones_like(KEPT)]])
def test_composites_whose_inputs_are_conditions_are_inlined(masks):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2Model(config).eval()
    ids = torch.randint(0, 50, (2, 7))
    ir = lg.to_ir(model, (ids,), {"attention_mask": masks[0]} if masks else {})
    conditions = [
        graph.nodes[node.when[0].node].type
        for each in ir.values()
        for graph in each.graphs
        for node in graph.nodes.values()
        if node.when is not None
    ]
    # Without a mask, the answer of a function decides in each module.
    assert ("input" in conditions) is bool(masks)
    edit = lg.edit(ir, model.state_dict())
    while calls := [c for c in edit if c.is_in_root and c.layer and edit.layers[c.layer].graphs]:
        edit.inline(calls[0])
    flat = lg.to_torch(edit.ir, edit.state)
    for options in [{"attention_mask": each} for each in masks] or [{}]:
        for _ in range(2):
            fresh = torch.randint(0, 50, (2, 7))
            with torch.no_grad():
                wanted = model(fresh, **options).last_hidden_state
                assert bitwise_equal(flat(fresh, **options)["last_hidden_state"], wanted)
    cut = "h.1.attn.c_proj"
    if masks:  # without one, what runs there depends on the ids
        _, state = lg.extract(ir, model.state_dict(), inputs=cut, outputs=cut)
        assert next(iter(state)) == "h.1.attn.c_proj.weight"
