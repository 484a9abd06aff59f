"""Costs, held against numbers that follow from the definition, and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import layergraph as lg
from layergraph.errors import ArgumentError, AssumptionError, ShapeError
from layergraph.ir import Implementation, Node, Ref, graph_from_nodes
from layergraph_shapes import LayerCall, TensorMeta
from layergraph_shapes.formulas import OPERATORS, is_free
from plugins.shapes.tests.models import MODELS, Attention, Fused, Tagger, Twice, transformer

# Each layer, the shapes of its inputs, and its multiply-adds as the definition says.
N, L, S = 2, 5, 7
LAYERS = {
    "linear": (nn.Linear(3, 4), [(N, L, 3)], N * L * 3 * 4),
    "linear of one row": (nn.Linear(3, 4, bias=False), [(3,)], 3 * 4),
    "bilinear": (nn.Bilinear(3, 4, 6), [(N, 3), (N, 4)], N * 6 * 3 * 4 + N * 6 * 4),
    "conv1d": (nn.Conv1d(4, 6, 3), [(N, 4, 10)], N * 8 * 6 * 4 * 3),
    "grouped conv1d": (nn.Conv1d(4, 6, 3, groups=2), [(N, 4, 10)], N * 8 * 6 * 2 * 3),
    "conv2d": (nn.Conv2d(3, 6, (3, 5), stride=2), [(N, 3, 9, 9)], N * 4 * 3 * 6 * 3 * 15),
    "dilated conv2d": (nn.Conv2d(3, 6, 3, dilation=2), [(N, 3, 9, 9)], N * 5 * 5 * 6 * 3 * 9),
    "unbatched conv2d": (nn.Conv2d(3, 6, 3), [(3, 9, 9)], 7 * 7 * 6 * 3 * 9),
    "conv3d": (nn.Conv3d(2, 3, 2), [(N, 2, 4, 5, 6)], N * 3 * 4 * 5 * 3 * 2 * 8),
    "convtranspose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), [(N, 4, 10)], N * 10 * 4 * 6 * 3),
    "convtranspose2d": (
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        [(N, 4, 5, 5)],
        N * 25 * 4 * 3 * 9,
    ),
    "rnn": (nn.RNN(3, 4), [(L, N, 3)], N * L * 4 * (3 + 4)),
    "lstm": (nn.LSTM(8, 16), [(2, 5, 8)], 30_720 // 2),
    "deep lstm": (
        nn.LSTM(3, 4, 2, bidirectional=True),
        [(L, N, 3)],
        N * L * 2 * (16 * (3 + 4) + 16 * (8 + 4)),
    ),
    "projected lstm": (
        nn.LSTM(3, 6, 2, proj_size=4),
        [(L, N, 3)],
        N * L * (24 * (3 + 4) + 6 * 4 + 24 * (4 + 4) + 6 * 4),
    ),
    "gru": (nn.GRU(3, 4, batch_first=True), [(N, L, 3)], N * L * 12 * (3 + 4)),
    "rnncell": (nn.RNNCell(3, 4), [(N, 3)], N * 4 * (3 + 4)),
    "lstmcell": (nn.LSTMCell(3, 4), [(N, 3)], N * 16 * (3 + 4)),
    "grucell": (nn.GRUCell(3, 4), [(N, 3)], N * 12 * (3 + 4)),
    "multiheadattention": (
        nn.MultiheadAttention(8, 2, batch_first=True),
        [(N, L, 8), (N, S, 8), (N, S, 8)],
        N * (L * 64 + 2 * S * 64 + 2 * L * S * 8 + L * 64),
    ),
    "transformerencoderlayer": (
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        [(N, L, 8)],
        N * (L * 8 * 24 + 2 * L * L * 8 + L * 64 + 2 * L * 8 * 12),
    ),
    "transformerdecoderlayer": (
        nn.TransformerDecoderLayer(8, 2, 12, batch_first=True),
        [(N, L, 8), (N, S, 8)],
        N * (L * 8 * 24 + 2 * L * L * 8 + L * 64)
        + N * (L * 64 + 2 * S * 64 + 2 * L * S * 8 + L * 64)
        + N * 2 * L * 8 * 12,
    ),
    "embedding": (nn.Embedding(9, 4), [TensorMeta((N, L), torch.int64)], 0),
    "embeddingbag": (nn.EmbeddingBag(9, 4), [TensorMeta((N, L), torch.int64)], 0),
    "batchnorm2d": (nn.BatchNorm2d(3), [(N, 3, 4, 4)], 0),
    "layernorm": (nn.LayerNorm(3), [(N, 3)], 0),
    "groupnorm": (nn.GroupNorm(3, 6), [(N, 6, 4)], 0),
    "instancenorm1d": (nn.InstanceNorm1d(3, affine=True), [(N, 3, 4)], 0),
    "rmsnorm": (nn.RMSNorm(3), [(N, 3)], 0),
    "localresponsenorm": (nn.LocalResponseNorm(2), [(N, 4, 4, 4)], 0),
    "maxpool2d": (nn.MaxPool2d(2), [(N, 3, 4, 4)], 0),
    "avgpool3d": (nn.AvgPool3d(2), [(N, 3, 4, 4, 4)], 0),
    "adaptiveavgpool1d": (nn.AdaptiveAvgPool1d(2), [(N, 3, 4)], 0),
    "adaptivemaxpool3d": (nn.AdaptiveMaxPool3d(2), [(N, 3, 4, 4, 4)], 0),
    "lppool2d": (nn.LPPool2d(2, 2), [(N, 3, 4, 4)], 0),
    "fractionalmaxpool2d": (nn.FractionalMaxPool2d(2, output_size=2), [(N, 3, 8, 8)], 0),
    "softmax": (nn.Softmax(-1), [(N, 3)], 0),
    "gelu": (nn.GELU(), [(N, 3)], 0),
    "rrelu": (nn.RReLU(), [(N, 3)], 0),
    "glu": (nn.GLU(), [(N, 4)], 0),
    "prelu": (nn.PReLU(), [(N, 4)], 0),
    "softmin": (nn.LogSoftmax(-1), [(N, 3)], 0),
    "upsample": (nn.Upsample(scale_factor=2, mode="bicubic"), [(N, 3, 4, 4)], 0),
    "trilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), [(N, 3, 4, 4, 4)], 0),
    "pixelshuffle": (nn.PixelShuffle(2), [(N, 4, 4, 4)], 0),
    "channelshuffle": (nn.ChannelShuffle(2), [(N, 4, 4, 4)], 0),
    "reflectionpad3d": (nn.ReflectionPad3d(1), [(N, 4, 4, 4, 4)], 0),
    "circularpad1d": (nn.CircularPad1d(1), [(N, 4, 4)], 0),
    "unfold": (nn.Unfold(2), [(N, 4, 4, 4)], 0),
    "fold": (nn.Fold((4, 5), 2), [(N, 12, 12)], 0),
    "cosinesimilarity": (nn.CosineSimilarity(), [(N, 4), (N, 4)], 0),
    "pairwisedistance": (nn.PairwiseDistance(), [(N, 4), (N, 4)], 0),
    "mseloss": (nn.MSELoss(), [(N, 4), (N, 4)], 0),
    "crossentropyloss": (nn.CrossEntropyLoss(), [(N, 4), TensorMeta((N,), torch.int64)], 0),
    "bceloss": (nn.BCEWithLogitsLoss(), [(N, 4), (N, 4)], 0),
    "kldivloss": (nn.KLDivLoss(reduction="batchmean"), [(N, 4), (N, 4)], 0),
    "tripletmarginloss": (nn.TripletMarginLoss(), [(N, 4), (N, 4), (N, 4)], 0),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_costs_what_its_definition_says(name, training):
    layer, args, multiply_adds = LAYERS[name]
    found = lg.cost(lg.to_ir(layer), args, training=training)
    assert found.flops == 2 * multiply_adds
    assert found.uncounted == ()
    assert found.training is training
    assert found.parameters == sum(each.numel() for each in layer.parameters())
    assert found["root"].calls == 1


@pytest.mark.parametrize("training", [False, True])
def test_a_transformer_encoder_of_four_layers(training):
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    ir = lg.to_ir(nn.TransformerEncoder(layer, 4).eval(), (torch.randn(2, 50, 64),))
    assert lg.cost(ir, [(2, 50, 64)], training=training).flops == 31_334_400
    with torch.inference_mode():
        assert lg.cost(ir, [(2, 50, 64)], training=training).flops == 31_334_400


def test_an_lstm():
    assert lg.cost(lg.to_ir(nn.LSTM(8, 16)), [(2, 5, 8)]).flops == 30_720


UNKNOWN = ("tagger", "bilinear")


# Torch's counter does not know the operators of the others.
@pytest.mark.parametrize(
    "name", [each for each in MODELS if each not in UNKNOWN and "lstm" not in each]
)
def test_torch_counts_the_same_without_fused_kernels(name):
    make, args, kwargs = MODELS[name]
    model = make().eval()
    ir = lg.to_ir(model, args, kwargs)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    found = lg.cost(ir, args, kwargs)
    assert found.flops == counter.get_total_flops()
    assert found.uncounted == ()


def test_attention_by_a_kernel_costs_as_much_as_by_products():
    costs = [
        lg.cost(lg.to_ir(model, (torch.randn(2, 6, 16),)), [(2, 6, 16)])
        for model in (Attention(), Fused())
    ]
    # Two products for 2 samples of 6 tokens, which are 16 wide in all heads.
    assert [each["root"].flops for each in costs] == [2 * 2 * 2 * 6 * 6 * 16] * 2
    assert costs[0]["qkv"].flops == 2 * 2 * 6 * 16 * 48


PRODUCTS = {
    "mv": ((3, 4), (4,), 12),
    "dot": ((4,), (4,), 4),
    "mm": ((3, 4), (4, 5), 60),
    "bmm": ((2, 3, 4), (2, 4, 5), 120),
    "matmul": ((2, 1, 3, 4), (6, 4, 5), 2 * 6 * 60),
    "inner": ((3, 4), (5, 4), 60),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    one, other, multiply_adds = PRODUCTS[name]

    class Product(nn.Module):
        def forward(self, x, y):
            return getattr(torch, name)(x, y)

    ir = lg.to_ir(Product(), (torch.randn(one), torch.randn(other)))
    assert lg.cost(ir, [one, other]).flops == 2 * multiply_adds


def test_einsum_and_grouped_queries():
    class Mixed(nn.Module):
        def forward(self, x, q, k):
            attended = nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)
            return torch.einsum("bij,bkj->bik", x, x), attended

    given = [(2, 3, 4), (2, 4, 5, 8), (2, 2, 7, 8)]
    ir = lg.to_ir(Mixed(), tuple(map(torch.randn, given)))
    assert lg.cost(ir, given).flops == 2 * (2 * 3 * 3 * 4) + 2 * (2 * 4 * 5 * 7 * 16)


def test_each_formula_is_of_an_operator_and_no_free_one_is_a_product():
    for name in OPERATORS:
        namespace, _, last = name.partition(".")
        if namespace == "aten" and hasattr(torch.ops.aten, last):
            packet = getattr(torch.ops.aten, last)
            assert packet.overloads(), name
    for name in ("linalg_solve_ex", "_linalg_svd", "_cdist_backward", "mkldnn_rnn_layer"):
        packet = getattr(torch.ops.aten, name)
        assert not any(is_free(getattr(packet, each)) for each in packet.overloads()), name


# What is shared, and what is not called


def test_parameters_count_once_and_flops_for_each_call():
    found = lg.cost(lg.to_ir(Twice(), (torch.randn(1, 2, 9),)), [(1, 2, 9)])
    assert found.parameters == 2 * 2 * 3 + 2
    assert found["block.0"].calls == 2
    assert found["block.0"].flops == 2 * (7 + 5) * 2 * 2 * 3
    assert found["block.0"].output == TensorMeta((1, 2, 5))
    assert found.bytes == 4 * 14


def test_tied_tensors_count_once_and_buffers_only_as_bytes():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("kept", torch.zeros(3, dtype=torch.float64))
            self.register_buffer("made", torch.zeros(3), persistent=False)
            self.unused = nn.Linear(2, 2)

        def forward(self, ids):
            return self.head(self.embed(ids))

    ids = TensorMeta((2, 3), torch.int64)
    found = lg.cost(lg.to_ir(Tied(), (torch.zeros(2, 3, dtype=torch.int64),)), [ids])
    assert found.parameters == 36 + 6
    assert (found["embed"].parameters, found["head"].parameters) == (36, 0)
    assert found.bytes == 4 * 42 + 24
    assert found["head"].flops == 2 * 6 * 36
    assert (found["unused"].calls, found["unused"].flops) == (0, 0)
    with pytest.raises(KeyError):
        found["nothing"]
    assert "not called" in str(found)


def test_sizes_with_names_stand_for_numbers():
    ir = lg.to_ir(nn.Linear(3, 4))
    assert lg.cost(ir, [("n", 3)], sizes={"n": 5}).flops == 2 * 5 * 12
    with pytest.raises(ArgumentError, match="sizes="):
        lg.cost(ir, [("n", 3)])


# What is not known


class Solving(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.linalg.solve(self.fc(x), x)


def test_an_operator_without_a_formula_is_named():
    ir = lg.to_ir(Solving(), (torch.eye(4),))
    found = lg.cost(ir, [(4, 4)])
    assert found.uncounted == ("root (aten._linalg_solve_ex)",)
    assert found.flops == 2 * 64
    text = str(found)
    assert "128 + ?" in text or "0 + ?" in text
    assert text.endswith("not counted: root (aten._linalg_solve_ex)")


def test_a_formula_of_the_caller_counts_and_takes_precedence():
    ir = lg.to_ir(Solving(), (torch.eye(4),))
    calls = []

    def cubed(call: LayerCall) -> int:
        calls.append(call)
        return 2 * call.result.shape[0] ** 3

    found = lg.cost(ir, [(4, 4)], formulas={"torch.linalg.solve": cubed, "linear": lambda _: 5})
    assert (found["root"].flops, found["fc"].flops, found.uncounted) == (128, 5, ())
    assert calls[0].layer is None
    assert [tuple(each.shape) for each in calls[0].args] == [(4, 4), (4, 4)]


def test_products_of_a_size_that_numbers_decide_are_named():
    class Selected(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x[x[:, 0] > 0])

    found = lg.cost(lg.to_ir(Selected(), (torch.randn(5, 4),)), [(5, 4)])
    assert found.uncounted == ("fc (a size that numbers decide)",)


# Memory


def test_the_peak_of_a_chain():
    model = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 8), nn.Flatten())
    found = lg.cost(lg.to_ir(model), [(3, 4)])
    # The input, and the values before and after the activation.
    assert found.peak_activation_bytes == 4 * 3 * (4 + 100 + 100)


def test_views_and_operations_in_place_take_no_memory():
    class Views(nn.Module):
        def forward(self, x):
            y = x * 2
            z = y.view(-1).unsqueeze(0).expand(5, -1)
            y.add_(1)
            return z

    found = lg.cost(lg.to_ir(Views(), (torch.randn(3, 4),)), [(3, 4)])
    assert found.peak_activation_bytes == 4 * 2 * 12


def test_a_value_that_is_read_later_stays():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))

        def forward(self, x):
            y = x * 2
            return self.body(y) + y

    found = lg.cost(lg.to_ir(Skip(), (torch.randn(3, 4),)), [(3, 4)])
    assert found.peak_activation_bytes == 4 * 12 * 4


def test_the_peak_is_the_same_each_time():
    ir = lg.to_ir(transformer(), (torch.randn(2, 6, 16),))
    tagger = lg.to_ir(Tagger(), (torch.zeros(2, 7, dtype=torch.int64),))
    ids = TensorMeta((2, 7), torch.int64)
    assert len({lg.cost(ir, [(2, 6, 16)]).peak_activation_bytes for _ in range(3)}) == 1
    assert len({lg.cost(tagger, [ids]).peak_activation_bytes for _ in range(3)}) == 1


def test_weights_that_a_graph_reads_take_no_memory():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 1000))

        def forward(self, x):
            return (x @ self.weight).sum(1)

    found = lg.cost(lg.to_ir(Reading(), (torch.randn(3, 4),)), [(3, 4)])
    assert found.peak_activation_bytes == 4 * (3 * 4 + 3 * 1000 + 3)


def test_a_way_that_fails_leaves_no_memory():
    def graph(*nodes):
        made = graph_from_nodes(nodes)
        return {"nodes": made.nodes, "edges": made.edges}

    inner = Implementation(
        "module",
        name="inner",
        **graph(
            Node("x", "input", "x"),
            Node("big", "function", "torch.mul", (Ref("x"), 2)),
            Node("fails", "function", "torch.mm", (Ref("big"), Ref("big"))),
            Node("output", "output", "output", (Ref("fails"),)),
        ),
    )
    root = Implementation(
        "module",
        name="root",
        children={"inner": "inner"},
        **graph(
            Node("x", "input", "x"),
            Node("sum", "function", "torch.sum", (Ref("x"),)),
            Node("ask", "function", "layergraph.truth", (Ref("sum"),)),
            Node("in", "module", "inner", (Ref("x"),), when=(Ref("ask"), True)),
            Node("by", "function", "layergraph.choose", (Ref("ask"), Ref("in"), Ref("x"))),
            Node("two", "function", "torch.mul", (Ref("by"), 2)),
            Node("output", "output", "output", (Ref("two"),)),
        ),
    )
    found = lg.cost(lg.Ir([root, inner]), [(2, 3)])
    # The input, and either the first value on the way that fails or the last value.
    assert found.peak_activation_bytes == 24 + 4 + 24 or found.peak_activation_bytes == 48
    assert found["inner"].calls == 0


# Decisions and modes


class Ways(nn.Module):
    def __init__(self):
        super().__init__()
        self.cheap, self.dear = nn.Linear(4, 1), nn.Linear(4, 100)

    def forward(self, x):
        y = self.cheap(x) if x.sum() > 0 else self.dear(x)
        return y.sum() if x.max() > 0 else self.dear(x).sum()


def test_the_way_with_the_most_flops_counts():
    ir = lg.to_ir(Ways(), (torch.randn(3, 4),))
    first, second = lg.shapes(ir, [(3, 4)]).decisions
    found = lg.cost(ir, [(3, 4)])
    assert found.decisions == {first: False, second: False}
    assert found.flops == 2 * 2 * 3 * 400
    assert f"{first} is False" in str(found)
    answered = lg.cost(ir, [(3, 4)], decisions={first: True, second: True})
    assert (answered.flops, answered.decisions) == (2 * 3 * 4, {})
    assert answered["dear"].flops == 0


def test_more_decisions_than_are_compared_are_refused():
    nodes = [Node("x", "input", "x"), Node("sum", "function", "torch.sum", (Ref("x"),))]
    for index in range(11):
        ask, by = f"ask{index}", f"by{index}"
        nodes.append(Node(ask, "function", "layergraph.truth", (Ref("sum"),)))
        nodes.append(
            Node(by, "function", "torch.mm", (Ref("x"), Ref("x")), when=(Ref(ask), index % 2 == 0))
        )
    graph = graph_from_nodes([*nodes, Node("output", "output", "output", (Ref("x"),))])
    ir = lg.Ir([Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)])
    with pytest.raises(ShapeError, match=r"11 decisions.*decisions=\{'ask0': True\}"):
        lg.cost(ir, [(4, 4)])
    assert lg.cost(ir, [(4, 4)], decisions={"ask0": False}).flops == 10 * 128


def test_the_mode_is_told():
    class ByMode(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.aux = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return (self.fc(x), self.aux(x)) if self.training else self.fc(x)

    ir = lg.to_ir(ByMode(), (torch.randn(3, 4),))
    assert lg.cost(ir, [(3, 4)]).training
    assert lg.cost(ir, [(3, 4)]).flops == 2 * lg.cost(ir, [(3, 4)], training=False).flops
    assert str(lg.cost(ir, [(3, 4)], training=False)).endswith("in evaluation mode")


def test_errors_are_ours():
    ir = lg.to_ir(Attention(), (torch.randn(2, 6, 16),))
    for args, error in (
        ([], ArgumentError),
        ([(6, 16)], AssumptionError),
        ([(1, 2, 3)], ShapeError),
    ):
        with pytest.raises(error):
            lg.cost(ir, args)


def test_the_table():
    model = nn.Sequential(nn.Linear(4, 1000), nn.ReLU())
    assert str(lg.cost(lg.to_ir(model.eval()), [(2, 4)])).splitlines() == [
        "layer  type        output            parameters   FLOPs",
        "root   sequential  float32[2, 1000]           0       0",
        "0      linear      float32[2, 1000]       5,000  16,000",
        "1      relu        float32[2, 1000]           0       0",
        "16,000 FLOPs, 5,000 parameters, 20,000 bytes",
        "16,032 bytes of activations at most, in evaluation mode",
    ]
