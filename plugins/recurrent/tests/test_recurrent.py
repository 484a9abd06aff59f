"""Recurrent layers there and back."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_sequence

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.testing import Case, LayerTests, bitwise_equal, layers_of


def torch_to_ir(module):
    """Return the implementation of a module; None if no handler answers."""
    return lg.explain(module).chains[0].answer


OVER_TIME = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
VARIANTS = {
    "": {},
    "deep": {"num_layers": 3},
    "without bias": {"bias": False},
    "batch first": {"batch_first": True},
    "dropout": {"num_layers": 2, "dropout": 0.5},
    "integral dropout": {"num_layers": 2, "dropout": 1},
    "bidirectional": {"bidirectional": True},
    "all": {
        "num_layers": 2,
        "bias": False,
        "batch_first": True,
        "dropout": 0.25,
        "bidirectional": True,
    },
}
CASES = {
    **{
        f"{cls.__name__} {name}".strip(): Case(partial(cls, 3, 4, **arguments), [(5, 2, 3)])
        for cls in OVER_TIME
        for name, arguments in VARIANTS.items()
    },
    "RNN relu": Case(lambda: nn.RNN(3, 4, nonlinearity="relu"), [(5, 2, 3)]),
    "RNN relu by position": Case(lambda: nn.RNN(3, 4, 2, "relu", False), [(5, 2, 3)]),
    "RNN with state": Case(lambda: nn.RNN(3, 4, 2), [(5, 2, 3), (2, 2, 4)]),
    "GRU with state": Case(lambda: nn.GRU(3, 4, bidirectional=True), [(5, 2, 3), (2, 2, 4)]),
    "LSTM projected": Case(lambda: nn.LSTM(3, 4, proj_size=2), [(5, 2, 3)]),
    "LSTM projected without bias": Case(
        lambda: nn.LSTM(3, 4, 2, bias=False, bidirectional=True, proj_size=2), [(5, 2, 3)]
    ),
    **{f"{cls.__name__} unbatched": Case(partial(cls, 3, 4), [(5, 3)]) for cls in OVER_TIME},
    **{cls.__name__: Case(partial(cls, 3, 4), [(2, 3)]) for cls in CELLS},
    **{
        f"{cls.__name__} without bias": Case(partial(cls, 3, 4, bias=False), [(2, 3)])
        for cls in CELLS
    },
    **{f"{cls.__name__} unbatched": Case(partial(cls, 3, 4), [(3,)]) for cls in CELLS},
    "RNNCell relu": Case(lambda: nn.RNNCell(3, 4, nonlinearity="relu"), [(2, 3)]),
    "RNNCell with state": Case(lambda: nn.RNNCell(3, 4), [(2, 3), (2, 4)]),
    "GRUCell with state": Case(lambda: nn.GRUCell(3, 4), [(2, 3), (2, 4)]),
}


class TestRecurrent(LayerTests):
    distribution = "layergraph-recurrent"
    # The base is no layer: it has no forward.
    classes = layers_of(torch.nn.modules.rnn) - {nn.RNNBase, nn.modules.rnn.RNNCellBase}
    cases = CASES


@pytest.mark.parametrize(
    ("model", "size", "hidden", "cell"),
    [
        (nn.LSTM(3, 4), (5, 2, 3), (1, 2, 4), (1, 2, 4)),
        (nn.LSTM(3, 4), (5, 3), (1, 4), (1, 4)),
        (nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), (5, 2, 3), (4, 2, 2), (4, 2, 4)),
        (nn.LSTMCell(3, 4), (2, 3), (2, 4), (2, 4)),
        (nn.LSTMCell(3, 4), (3,), (4,), (4,)),
    ],
    ids=["batched", "unbatched", "projected", "cell", "unbatched cell"],
)
def test_a_pair_of_initial_states(round_trip, model, size, hidden, cell):
    round_trip(model, torch.randn(size), (torch.randn(hidden), torch.randn(cell)))


class Translator(nn.Module):
    """Layers that hand their states on, and a cell that is called more than once."""

    def __init__(self):
        super().__init__()
        self.read = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5)
        self.write = nn.LSTM(4, 4, 2, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, words):
        states, last = self.read(words)
        written, (hidden, memory) = self.write(states, last)
        written, _ = self.gru(written, hidden[:1])
        first = self.cell(written[:, 0], (hidden[0], memory[0]))
        return self.cell(written[:, 1], first)[0]


def test_states_are_handed_from_layer_to_layer(round_trip):
    ir, _ = round_trip(Translator(), torch.randn(2, 5, 3))
    assert [each.type for each in ir.values()] == ["module", "lstm", "lstm", "gru", "lstmcell"]


@pytest.mark.parametrize("cls", OVER_TIME)
def test_packed_sequences(cls):
    model = cls(3, 4, 2, bidirectional=True)
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    packed = pack_sequence([torch.randn(2, 3), torch.randn(5, 3)], enforce_sorted=False)
    was, now = model(packed)[0], rebuilt(packed)[0]
    assert bitwise_equal(was.data, now.data)
    assert bitwise_equal(was.sorted_indices, now.sorted_indices)


def holds_its_parameters(layer):
    held = dict(layer.named_parameters())
    return [id(held[name]) for name in layer._flat_weights_names] == [
        id(weight) for weight in layer._flat_weights
    ]


@pytest.mark.parametrize("cls", OVER_TIME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_runs_on_the_parameters_that_it_has(cls, dtype):
    model = cls(3, 4, 2, bidirectional=True).to(dtype).requires_grad_(False)
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert holds_its_parameters(rebuilt)
    other = cls(3, 4, 2, bidirectional=True).to(dtype)
    inputs = torch.randn(5, 2, 3, dtype=dtype)
    for assign in (False, True):
        state = {key: value + assign for key, value in other.state_dict().items()}
        model.load_state_dict(state)
        rebuilt.load_state_dict(state, assign=assign)
        assert bitwise_equal(model(inputs)[0], rebuilt(inputs)[0])
        assert holds_its_parameters(rebuilt)
    rebuilt, model = rebuilt.double(), model.double()
    assert bitwise_equal(model(inputs.double())[0], rebuilt(inputs.double())[0])


def test_a_dtype_for_each_tensor():
    """The layer refuses to run so, but comes back so."""
    model = nn.GRU(3, 4)
    model.bias_hh_l0.data = model.bias_hh_l0.data.double()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert rebuilt.bias_hh_l0.dtype is torch.float64
    assert rebuilt.weight_hh_l0.dtype is torch.float32
    assert holds_its_parameters(rebuilt)


def test_another_default_dtype_changes_nothing():
    model = nn.LSTM(3, 4)
    ir = lg.to_ir(model)
    torch.set_default_dtype(torch.float64)
    try:
        rebuilt = lg.to_torch(ir, model.state_dict())
    finally:
        torch.set_default_dtype(torch.float32)
    inputs = torch.randn(5, 2, 3)
    assert bitwise_equal(model(inputs)[0], rebuilt(inputs)[0])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.LSTM(3, 3, bidirectional=True), nn.LSTM(6, 3)
        self.other.weight_hh_l0 = self.one.weight_hh_l0
        self.one.weight_ih_l0_reverse = self.one.weight_ih_l0

    def forward(self, x):
        return self.other(self.one(x)[0])[0]


def test_tied_weights_stay_tied(round_trip):
    _, rebuilt = round_trip(Tied(), torch.randn(5, 2, 3))
    assert rebuilt.one.weight_ih_l0_reverse is rebuilt.one.weight_ih_l0
    assert rebuilt.other.weight_hh_l0 is rebuilt.one.weight_hh_l0
    assert holds_its_parameters(rebuilt.other)


def pruned(layer):
    prune.random_unstructured(layer, "weight_hh_l0", 0.5)


CHANGES = {
    "another size": lambda layer: setattr(layer, "hidden_size", 5),
    "another mode": lambda layer: setattr(layer, "mode", "GRU"),
    "more layers": lambda layer: setattr(layer, "num_layers", 2),
    "other names": lambda layer: layer._flat_weights_names.reverse(),
    "no dropout that is one": lambda layer: setattr(layer, "dropout", 2.0),
    "a tensor more": lambda layer: layer.register_buffer("extra", torch.ones(1)),
    "a pruned weight": pruned,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_layer_is_not_taken_for_one(change):
    layer = nn.LSTM(3, 4)
    assert torch_to_ir(layer) is not None
    change(layer)
    assert torch_to_ir(layer) is None


def test_a_nonlinearity_that_the_layer_does_not_run_is_not_said():
    layer = nn.RNN(3, 4)
    layer.nonlinearity = "relu"
    assert torch_to_ir(layer) is None


@pytest.mark.parametrize("cls", OVER_TIME)
@pytest.mark.parametrize("missing", ["input_size", "hidden_size"])
def test_sizes_are_needed(cls, missing):
    ir = copy.deepcopy(lg.to_ir(cls(3, 4)))
    del ir["root"].data[missing]
    with pytest.raises(BuildError, match=missing):
        lg.to_torch(ir)


def test_only_an_lstm_is_projected():
    with pytest.raises(BuildError, match="has no attribute 'proj_size'; it has input_size"):
        lg.to_torch(lg.Ir([lg.Implementation("gru", {"proj_size": 2}, name="root")]))
