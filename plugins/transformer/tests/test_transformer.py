"""Transformers there and back."""

import copy
import inspect
import itertools
import pickle
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import layergraph as lg
from layergraph.errors import BuildError, CaptureError
from layergraph.testing import Case, LayerTests, bitwise_equal, layers_of

pytestmark = pytest.mark.slow

# What torch says where its own defaults are slow.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")


def torch_to_ir(module):
    """Return the implementation of a module; None if no handler answers."""
    return lg.explain(module).chains[0].answer


SOURCE, TARGET = (2, 5, 8), (2, 4, 8)


def encoder_layer(**arguments):
    return nn.TransformerEncoderLayer(8, 2, **{"dim_feedforward": 12} | arguments)


def decoder_layer(**arguments):
    return nn.TransformerDecoderLayer(8, 2, **{"dim_feedforward": 12} | arguments)


def encoder(num_layers=2, norm=None, **arguments):
    of_stack = {
        name: arguments.pop(name)
        for name in ("enable_nested_tensor", "mask_check")
        if name in arguments
    }
    return nn.TransformerEncoder(encoder_layer(**arguments), num_layers, norm, **of_stack)


def decoder(num_layers=2, norm=None, **arguments):
    return nn.TransformerDecoder(decoder_layer(**arguments), num_layers, norm)


def transformer(**arguments):
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 12}
    return nn.Transformer(8, 2, **sizes | arguments)


OF_LAYERS = {
    "": {},
    "batch first": {"batch_first": True},
    "without dropout": {"dropout": 0.0},
    "norm first": {"norm_first": True},
    "without bias": {"bias": False},
    "gelu": {"activation": "gelu", "batch_first": True},
    "gelu function": {"activation": F.gelu},
    "relu module": {"activation": nn.ReLU(inplace=True), "batch_first": True},
    "gelu module": {"activation": nn.GELU("tanh")},
    "all": {
        "dim_feedforward": 6,
        "dropout": 0.5,
        "activation": F.gelu,
        "layer_norm_eps": 1e-3,
        "batch_first": True,
        "norm_first": True,
        "bias": False,
    },
}
OF_STACKS = {
    "of one": {"num_layers": 1},
    "normed": {"norm": nn.LayerNorm(8)},
    "normed otherwise": {"norm": nn.LayerNorm(8, eps=1e-3, bias=False)},
    "normed without state": {"norm": nn.LayerNorm((8,), elementwise_affine=False)},
    "normed by squares": {"norm": nn.RMSNorm(8, eps=1e-3)},
}
MAKERS = {
    encoder_layer: ([SOURCE], OF_LAYERS),
    decoder_layer: ([TARGET, SOURCE], OF_LAYERS),
    encoder: (
        [SOURCE],
        OF_LAYERS
        | OF_STACKS
        | {
            "not nested": {"batch_first": True, "enable_nested_tensor": False},
            "not checked": {"batch_first": True, "mask_check": False},
        },
    ),
    decoder: ([TARGET, SOURCE], OF_LAYERS | OF_STACKS),
    transformer: (
        [SOURCE, TARGET],
        OF_LAYERS | {"deep": {"num_encoder_layers": 2, "num_decoder_layers": 3}},
    ),
}


def make_new(make, arguments):
    """Some arguments are modules, of which every model needs its own."""
    return make(**copy.deepcopy(arguments))


CASES = {
    f"{make.__name__} {name}".strip(): Case(
        partial(make_new, make, arguments),
        sizes if arguments.get("batch_first") else [(size[1], 2, 8) for size in sizes],
    )
    for make, (sizes, variants) in MAKERS.items()
    for name, arguments in variants.items()
}


class TestTransformer(LayerTests):
    distribution = "layergraph-transformer"
    classes = layers_of(torch.nn.modules.transformer)
    cases = CASES


# --- what they are called with ---

CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
WINDOW = torch.ones(5, 5).triu(2).bool()
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
ENCODER_CALLS = {
    "nothing": (),
    "mask": (CAUSAL,),
    "boolean mask": (WINDOW,),
    "causal": (CAUSAL, None, True),
    "padding": (None, PADDING),
    "numeric padding": (CAUSAL, torch.zeros(2, 5).masked_fill(PADDING, -torch.inf)),
    "both": (WINDOW, PADDING),
}
DECODER_CALLS = {
    "nothing": (),
    "mask": (CAUSAL[:4, :4], torch.zeros(4, 5)),
    "causal": (CAUSAL[:4, :4], None, None, None, True),
    "padding": (None, None, PADDING[:, :4], PADDING),
}


@pytest.mark.parametrize("arguments", ENCODER_CALLS.values(), ids=ENCODER_CALLS.keys())
@pytest.mark.parametrize("make", [encoder_layer, encoder])
def test_masks_of_encoders(round_trip, make, arguments):
    for norm_first in (False, True):
        model = make(batch_first=True, norm_first=norm_first)
        round_trip(model, torch.randn(SOURCE), *arguments)


@pytest.mark.parametrize("arguments", DECODER_CALLS.values(), ids=DECODER_CALLS.keys())
@pytest.mark.parametrize("make", [decoder_layer, decoder])
def test_masks_of_decoders(round_trip, make, arguments):
    round_trip(make(batch_first=True), torch.randn(TARGET), torch.randn(SOURCE), *arguments)


def test_masks_of_transformers(round_trip):
    round_trip(
        transformer(batch_first=True),
        torch.randn(SOURCE),
        torch.randn(TARGET),
        *(CAUSAL, CAUSAL[:4, :4], torch.zeros(4, 5), PADDING, None, PADDING, True, True),
    )


@pytest.mark.parametrize("make", [encoder_layer, encoder, decoder_layer, decoder, transformer])
@pytest.mark.parametrize("batch_first", [False, True])
def test_without_batches(round_trip, make, batch_first):
    inputs = [torch.randn(5, 8)] * len(MAKERS[make][0])
    round_trip(make(batch_first=batch_first), *inputs)


# --- fused kernels ---


@pytest.fixture
def fused(monkeypatch):
    """Which of the fused ways were taken."""
    taken = []

    def watch(name):
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, **k: taken.append(name) or original(*a, **k))

    watch("_transformer_encoder_layer_fwd")
    watch("_nested_tensor_from_mask")
    return taken


FUSED = ["_transformer_encoder_layer_fwd"] * 2
NESTED = ["_nested_tensor_from_mask", *FUSED]


@pytest.mark.parametrize(
    ("arguments", "given", "ways"),
    [
        ({}, (), FUSED),
        ({}, (CAUSAL,), FUSED),
        ({"norm_first": True, "activation": "gelu"}, (), FUSED),
        ({}, (None, PADDING), NESTED),
        ({"activation": nn.GELU("tanh")}, (None, PADDING), NESTED),
        ({"mask_check": False}, (None, PADDING.flip(1)), NESTED),
        ({"mask_check": True}, (None, PADDING.flip(1)), FUSED),
        ({"enable_nested_tensor": False}, (None, PADDING), FUSED),
        ({"bias": False}, (), []),
        ({"batch_first": False}, (), []),
    ],
)
def test_fused_kernels_are_chosen_as_before(fused, arguments, given, ways):
    model = encoder(**{"batch_first": True} | arguments).eval()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    inputs = torch.randn(SOURCE if arguments.get("batch_first", True) else (5, 2, 8))
    with torch.no_grad():
        was = model(inputs, *given)
        assert fused == ways
        now = rebuilt(inputs, *given)
    assert fused == ways * 2
    assert bitwise_equal(was, now)


def test_a_transformer_chooses_them_too(fused):
    model = transformer(batch_first=True, num_encoder_layers=2).eval()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    inputs = torch.randn(SOURCE), torch.randn(TARGET)
    with torch.no_grad():
        assert bitwise_equal(
            model(*inputs, src_key_padding_mask=PADDING),
            rebuilt(*inputs, src_key_padding_mask=PADDING),
        )
    assert fused == NESTED * 2


# --- inside a model ---


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.encoder = encoder(norm=nn.LayerNorm(8), batch_first=True)
        self.decoder = decoder(batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, words, padding):
        words = self.embed(words)
        memory = self.encoder(words, src_key_padding_mask=padding)
        words = self.decoder(words, memory, memory_key_padding_mask=padding, tgt_is_causal=False)
        return self.head(words)


def test_calls_with_names_inside_a_model(round_trip, fused):
    model = Reader()
    inputs = torch.randn(2, 5, 3), PADDING
    ir, rebuilt = round_trip(model, *inputs)
    assert [each.type for each in ir.values()] == [
        *("module", "linear", "transformerencoder", "transformerdecoder", "linear")
    ]
    fused.clear()
    with torch.no_grad():
        assert bitwise_equal(model.eval()(*inputs), rebuilt.eval()(*inputs))
    assert fused == NESTED * 2


class Traceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = decoder_layer(activation=F.silu)

    def forward(self, target, memory):
        return self.layer(target, memory)


def test_a_layer_that_is_not_taken_is_traced_through(round_trip):
    ir, _ = round_trip(Traceable(), torch.randn(4, 2, 8), torch.randn(5, 2, 8))
    assert ir["layer"].type == "module"
    assert ir["layer.linear1"].type == "linear"


def test_what_a_copied_layer_of_a_decoder_runs(round_trip):
    """Torch's copies of one run relu, whatever module they hold."""
    model = Traceable()
    model.layer = copy.deepcopy(decoder_layer(activation=nn.GELU()))
    assert torch_to_ir(model.layer) is None
    ir, _ = round_trip(model, torch.randn(4, 2, 8), torch.randn(5, 2, 8))
    assert "relu" in ir["layer"].nodes


def test_one_that_decides_by_its_inputs_is_refused():
    with pytest.raises(CaptureError, match=r"transformer\.py"):
        lg.to_ir(encoder_layer(activation=torch.tanh))


# --- what is taken, and what not ---


class OwnLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class OwnReLU(nn.ReLU):
    pass


class OwnNorm(nn.LayerNorm):
    pass


class OwnLayer(nn.TransformerEncoderLayer):
    pass


def changed_norm():
    norm = nn.LayerNorm(8)
    norm.elementwise_affine = False
    return norm


def put(path, value):
    """A change of what is at a path; a function is given what was there."""

    def change(module):
        *way, name = path.split(".")
        for step in way:
            module = getattr(module, step)
        change_to = value(getattr(module, name)) if inspect.isfunction(value) else value
        setattr(module, name, change_to)

    return change


LAYER_CHANGES = {
    "a class inside": put("linear1", lambda _: OwnLinear(8, 12)),
    "a class of all attributes": lambda layer: setattr(layer.linear2, "__class__", OwnLinear),
    "nothing inside": put("norm2", lambda _: nn.Identity()),
    "another norm": put("norm1", lambda _: nn.RMSNorm(8)),
    "nothing where eps is read": put("norm1", lambda _: nn.Identity()),
    "another size": put("linear1", lambda _: nn.Linear(8, 13)),
    "another attention": put(
        "self_attn", lambda _: nn.MultiheadAttention(8, 2, add_bias_kv=True, dropout=0.1)
    ),
    "other heads": put("self_attn.num_heads", 4),
    "added zeros": put("self_attn.add_zero_attn", True),
    "another dropout": put("dropout1.p", 0.5),
    "another eps": put("norm2.eps", 1e-3),
    "another eps where it is read": put("norm1.eps", 1e-3),
    "a dropout in place": put("dropout2.inplace", True),
    "an activation of its own": put("activation", lambda _: torch.tanh),
    "a class of activations": put("activation", lambda _: OwnReLU()),
    "a pruned weight": lambda layer: prune.l1_unstructured(layer.linear1, "weight", 0.5),
    "a parametrized weight": lambda layer: parametrizations.spectral_norm(layer.linear1),
    "no bias": put("linear1.bias", lambda _: None),
    "one bias fewer": put("linear2.bias", lambda _: None),
    "another mode inside": lambda layer: layer.dropout1.eval(),
    "a hook inside": lambda layer: layer.linear1.register_forward_hook(lambda *_: None),
    "a hook on gradients inside": lambda layer: layer.linear1.register_full_backward_hook(
        lambda *_: None
    ),
    "a forward inside": put("linear1.forward", lambda _: F.relu),
    "a method": put("_ff_block", lambda _: F.relu),
    "a buffer inside": lambda layer: layer.dropout.register_buffer("extra", torch.ones(1)),
}
STACK_CHANGES = {
    **{
        f"{name} in layer {index}": lambda stack, change=change, index=index: change(
            stack.layers[index]
        )
        for name, change in LAYER_CHANGES.items()
        for index in (0, 1)
    },
    "layers that differ": put("layers.1.dropout", lambda _: nn.Dropout(0.2)),
    "layers that are one": lambda stack: put("layers.1", stack.layers[0])(stack),
    "a layer of a class": put("layers.1", lambda _: OwnLayer(8, 2, 12)),
    "a first layer of a class": put("layers.0", lambda _: OwnLayer(8, 2, 12)),
    "another layer": put("layers.0", lambda _: nn.Linear(8, 8)),
    "a layer more": lambda stack: stack.layers.append(copy.deepcopy(stack.layers[0])),
    "no layers": put("layers", lambda _: nn.ModuleList()),
    "a sequence of layers": put("layers", lambda layers: nn.Sequential(*layers)),
    "another number": put("num_layers", 3),
    "a norm of batches": put("norm", lambda _: nn.BatchNorm1d(8)),
    "a norm of a class": put("norm", lambda _: OwnNorm(8)),
    "a norm that was changed": put("norm", lambda _: changed_norm()),
}
ENCODER_CHANGES = {
    "another activation": put("layers.0.activation", lambda _: F.gelu),
    "a choice": put("use_nested_tensor", True),
    "a choice of its layer": put("layers.1.activation_relu_or_gelu", 0),
    "a choice that would change another": put("layers.0.self_attn.batch_first", True),
}
TRANSFORMER_CHANGES = {
    "its size": put("d_model", 4),
    "its heads": put("nhead", 4),
    "its order": put("batch_first", True),
    "its encoder": put("encoder", lambda _: encoder(1)),
    "its decoder": put("decoder", lambda _: decoder(1)),
    "its encoder's class": put("encoder", lambda _: nn.Linear(8, 8)),
    "a norm": put("decoder.norm", lambda _: nn.LayerNorm(8, eps=1)),
    "no norm": put("encoder.norm", None),
    "a choice": put("encoder.mask_check", False),
    "a dropout": put("decoder.layers.0.dropout2.p", 0.5),
}
CHANGES = [
    *itertools.product([encoder_layer, decoder_layer], LAYER_CHANGES.items()),
    *itertools.product([encoder, decoder], STACK_CHANGES.items()),
    *itertools.product([encoder], ENCODER_CHANGES.items()),
    *itertools.product([transformer], TRANSFORMER_CHANGES.items()),
]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        pytest.param(make, change, id=f"{make.__name__} with {name}")
        for make, (name, change) in CHANGES
    ],
)
def test_a_changed_one_is_not_taken(make, change):
    model = make()
    assert torch_to_ir(model) is not None
    change(model)
    assert torch_to_ir(model) is None


ACCEPTED = {
    "copied": copy.deepcopy,
    "unpickled": lambda model: pickle.loads(pickle.dumps(model)),
    "in half precision": lambda model: model.bfloat16(),
    "evaluating": lambda model: model.eval(),
    "frozen": lambda model: model.requires_grad_(False),
    "with a note": lambda model: put("note", "mine")(model) or model,
    "with a note inside": lambda model: put("norm.note", "mine")(model) or model,
    "cleared": lambda model: model.zero_grad() or model,
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_changes_no_attribute_is_taken(change):
    model = encoder(norm=nn.LayerNorm(8))
    before = torch_to_ir(model)
    assert torch_to_ir(change(model)) == before


def test_tied_weights_come_back_tied(round_trip):
    model = encoder(3)
    model.layers[2].linear1.weight = model.layers[0].linear1.weight
    _, rebuilt = round_trip(model, torch.randn(5, 2, 8))
    assert rebuilt.layers[2].linear1.weight is rebuilt.layers[0].linear1.weight


def test_each_tensor_has_its_own_state(round_trip):
    model = encoder(norm=nn.LayerNorm(8))
    model.layers[0].requires_grad_(False)
    _, rebuilt = round_trip(model, torch.randn(5, 2, 8))
    assert not any(each.requires_grad for each in rebuilt.layers[0].parameters())
    assert all(each.requires_grad for each in rebuilt.layers[1].parameters())


def test_what_was_rebuilt_is_taken_again():
    for make in MAKERS:
        ir = lg.to_ir(make())
        assert lg.to_ir(lg.to_torch(ir)) == ir


def test_converting_neither_warns_nor_draws():
    model = transformer()
    torch.manual_seed(0)
    was = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ir = lg.to_ir(model)
    assert ir["root"].type == "transformer"
    assert bitwise_equal(torch.get_rng_state(), was)


LAYER = {"type": "transformerencoderlayer", "d_model": 8, "nhead": 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"encoder_layer": LAYER}, "'num_layers'"),
        ({"num_layers": 2}, "'encoder_layer'"),
        ({"encoder_layer": None, "num_layers": 2}, "encoder_layer is None, but has to be a dict"),
        ({"encoder_layer": [LAYER], "num_layers": 2}, "of type 'transformerencoderlayer'"),
        ({"encoder_layer": {"type": "linear"}, "num_layers": 2}, "encoder_layer is {'type"),
        ({"encoder_layer": {"d_model": 8}, "num_layers": 2}, "encoder_layer is {'d_model"),
        ({"encoder_layer": LAYER | {"width": 1}, "num_layers": 2}, "no attribute 'width'; it has"),
        ({"encoder_layer": LAYER | {"nhead": 3}, "num_layers": 2}, "divisible"),
        ({"encoder_layer": LAYER | {"activation": "tanh"}, "num_layers": 2}, "or 'relu' or 'gelu'"),
        ({"encoder_layer": LAYER, "num_layers": 2, "norm": "layernorm"}, "its norm is 'layernorm'"),
        ({"encoder_layer": LAYER, "num_layers": 2, "norm": {"type": "layernorm"}}, "shape"),
    ],
)
def test_attributes_that_make_no_encoder_are_refused(data, message):
    ir = lg.Ir([lg.Implementation("transformerencoder", data, name="root")])
    with pytest.raises(BuildError, match=message) as caught:
        lg.to_torch(ir)
    assert "implementation 'root'" in str(caught.value)


def test_an_encoder_written_by_hand():
    norm = {"type": "rmsnorm", "normalized_shape": 8}
    data = {"encoder_layer": LAYER, "num_layers": 3, "norm": norm}
    made = lg.to_torch(lg.Ir([lg.Implementation("transformerencoder", data, name="root")]))
    assert repr(made) == repr(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, nn.RMSNorm(8))
    )
