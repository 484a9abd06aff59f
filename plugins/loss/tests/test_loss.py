"""Losses: to an IR and back."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError, LayergraphError
from layergraph.testing import Case, LayerTests, bitwise_equal, layers_of
from layergraph.torch_versions import missing

NO_LINEAR = missing("linear_cross_entropy")
LinearLoss = getattr(nn, "LinearCrossEntropyLoss", None)
PAIR = [(5, 4), (5, 4)]
TRIPLET = [(5, 4)] * 3
CLASSES = torch.tensor([1, 3, 0, 2, 3])
SIGNS = torch.tensor([1, -1, 1, 1, -1])
PIXELS = torch.tensor([[[1, 0], [3, 2]], [[0, 0], [2, 1]]])
LABELS = torch.tensor([[1, 3, -1, 0], [2, -1, 0, 0]])
torch.manual_seed(0)
WEIGHTS = torch.rand(4)
LOGITS = torch.randn(5, 4)
SHARES = torch.rand(5, 4)

BY_INPUTS = {
    "pair": (
        PAIR,
        {
            nn.BCEWithLogitsLoss: [
                {"weight": WEIGHTS},
                {"pos_weight": WEIGHTS},
                {"weight": WEIGHTS, "pos_weight": torch.rand(5, 1), "reduction": "sum"},
            ],
            nn.CrossEntropyLoss: [{"label_smoothing": 0.1}],
            nn.HingeEmbeddingLoss: [{"margin": 0.5}],
            nn.HuberLoss: [{"delta": 0.5}],
            nn.KLDivLoss: [{"log_target": True, "reduction": "batchmean"}],
            nn.L1Loss: [{"reduction": "none"}],
            nn.MSELoss: [{"reduction": "sum"}],
            nn.MultiLabelSoftMarginLoss: [{"weight": WEIGHTS}, {"reduction": "none"}],
            nn.PoissonNLLLoss: [
                {"log_input": False, "eps": 0.5},
                {"full": True, "reduction": "sum"},
            ],
            nn.SmoothL1Loss: [{"beta": 0.5}],
        },
    ),
    "sides": (
        [(5, 4), SIGNS.unsqueeze(1).expand(5, 4)],
        {nn.SoftMarginLoss: [{"reduction": "none"}]},
    ),
    "shares": ([SHARES, SHARES.flip(0)], {nn.BCELoss: [{"reduction": "sum"}]}),
    "classes": (
        [(5, 4), CLASSES],
        {
            nn.CrossEntropyLoss: [
                {"weight": WEIGHTS},
                {"ignore_index": 3, "label_smoothing": 0.25},
                {"weight": WEIGHTS, "reduction": "none"},
            ],
            nn.MultiMarginLoss: [{"p": 2, "margin": 0.5}, {"weight": WEIGHTS}],
            nn.NLLLoss: [{"weight": WEIGHTS}, {"ignore_index": 3, "reduction": "sum"}],
        },
    ),
    "pixels": (
        [(2, 4, 2, 2), PIXELS],
        {
            nn.NLLLoss2d: [{"weight": WEIGHTS}, {"ignore_index": 3, "reduction": "sum"}],
        },
    ),
    "labels": ([(2, 4), LABELS], {nn.MultiLabelMarginLoss: [{"reduction": "none"}]}),
    "signs": (
        [(5, 4), (5, 4), SIGNS],
        {nn.CosineEmbeddingLoss: [{"margin": 0.5}, {"reduction": "none"}]},
    ),
    "ranks": ([(5,), (5,), SIGNS], {nn.MarginRankingLoss: [{"margin": 0.5}]}),
    "variance": (
        [(5, 4), (5, 4), SHARES],
        {nn.GaussianNLLLoss: [{"full": True}, {"eps": 0.5, "reduction": "none"}]},
    ),
    "triplet": (
        TRIPLET,
        {
            nn.TripletMarginLoss: [
                {"margin": 0.5, "p": 1.0},
                {"swap": True, "eps": 0.1, "reduction": "none"},
            ],
            nn.TripletMarginWithDistanceLoss: [
                {"margin": 2.0, "swap": True, "reduction": "sum"},
                {"distance_function": nn.PairwiseDistance(1.0, keepdim=True)},
                {"distance_function": nn.CosineSimilarity(dim=0)},
                {"distance_function": nn.functional.pairwise_distance},
                {"distance_function": nn.functional.cosine_similarity, "margin": 3},
            ],
        },
    ),
    "sequences": (
        [
            torch.randn(7, 2, 4).log_softmax(2),
            torch.tensor([[1, 2, 1], [3, 1, 2]]),
            torch.tensor([7, 5]),
            torch.tensor([3, 2]),
        ],
        {nn.CTCLoss: [{"blank": 2, "zero_infinity": True}, {"reduction": "none"}]},
    ),
}
LINEAR = {
    "default": {},
    "biased": {"bias": True, "label_smoothing": 0.1, "reduction": "sum"},
    "weighted": {"weight": WEIGHTS, "ignore_index": 3},
    "with options": {"options": {}},
    "with other options": {
        "options": {"batch_chunk_size": 2, "chunking_method": None, "allow_retain_graph": True}
    },
}
ADAPTIVE = {
    "default": {},
    "biased": {"head_bias": True, "div_value": 2.0},
}


def make(cls, arguments):
    return cls(**copy.deepcopy(arguments))  # each loss has its own layers and tensors


def make_linear(arguments):
    given = copy.deepcopy(arguments)
    if "options" in given:
        given["options"] = options_of(**given["options"])
    return LinearLoss(3, 4, **given)


def options_of(**said):
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    return LinearCrossEntropyOptions(**said)


CASES = {
    **{
        f"{cls.__name__} of {what} {index} {', '.join(arguments)}".strip(): Case(
            partial(make, cls, arguments), inputs
        )
        for what, (inputs, losses) in BY_INPUTS.items()
        for cls, variants in losses.items()
        for index, arguments in enumerate([{}, *variants])
    },
    **{
        f"LinearCrossEntropyLoss {name}": Case(
            partial(make_linear, arguments), [(5, 3), CLASSES], skip=NO_LINEAR
        )
        for name, arguments in LINEAR.items()
    },
    "LinearCrossEntropyLoss of pixels": Case(
        lambda: LinearLoss(3, 4, out_features=(2, 2), bias=True), [(2, 3), PIXELS], skip=NO_LINEAR
    ),
    **{
        f"AdaptiveLogSoftmaxWithLoss {name}": Case(
            partial(nn.AdaptiveLogSoftmaxWithLoss, 16, 10, [3, 6], **arguments),
            [(6, 16), torch.tensor([0, 9, 4, 2, 6, 3])],
        )
        for name, arguments in ADAPTIVE.items()
    },
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # NLLLoss2d is deprecated
class TestLoss(LayerTests):
    distribution = "layergraph-loss"
    classes = layers_of(torch.nn.modules.loss) | layers_of(torch.nn.modules.adaptive)
    cases = CASES


def leaf(module):
    return lg.to_ir(module)["root"]


def test_of_weights_the_shape_is_said_and_the_state_dict_has_the_values():
    loss = nn.BCEWithLogitsLoss(weight=torch.rand(5, 1), pos_weight=torch.rand(4).double())
    ir = lg.to_ir(loss)
    assert ir["root"].data == {"weight": (5, 1), "reduction": "mean", "pos_weight": (4,)}
    rebuilt = lg.to_torch(ir, loss.state_dict())
    assert bitwise_equal(rebuilt.weight, loss.weight)
    assert bitwise_equal(rebuilt.pos_weight, loss.pos_weight)
    assert rebuilt.pos_weight.dtype is torch.float64


def test_without_weights_none_are_made():
    rebuilt = lg.to_torch(lg.to_ir(nn.CrossEntropyLoss()))
    assert rebuilt.weight is None
    assert not rebuilt.state_dict()


@pytest.mark.filterwarnings("ignore:size_average and reduce:UserWarning")
def test_the_old_arguments_are_said_as_a_reduction():
    assert leaf(nn.MSELoss(size_average=False)).data == {"reduction": "sum"}
    assert leaf(nn.NLLLoss(reduce=False)).data == {"reduction": "none"}


@pytest.mark.filterwarnings("error")
def test_the_old_name_gives_no_warning_in_a_conversion():
    with pytest.warns(FutureWarning):
        loss = nn.NLLLoss2d(WEIGHTS)
    rebuilt = lg.to_torch(lg.to_ir(loss), loss.state_dict())
    assert type(rebuilt) is nn.NLLLoss2d


@pytest.mark.needs("linear_cross_entropy")
def test_a_dtype_among_the_options_comes_back():
    options = options_of(acc_dtype=torch.float32, acc_policy="accurate")
    ir = lg.to_ir(nn.LinearCrossEntropyLoss(3, 4, options=options))
    assert ir["root"].data["options"] == {
        "acc_policy": "accurate",
        "acc_dtype": lg.Symbol("torch.float32"),
    }
    assert lg.to_torch(lg.Ir.from_dict(ir.to_dict())).options == options


@pytest.mark.needs("linear_cross_entropy")
@pytest.mark.parametrize("options", [{"acc_dtype": lg.Symbol("torch.nn")}, {"no_such_option": 1}])
def test_options_that_are_none_are_refused(options):
    ir = lg.to_ir(nn.LinearCrossEntropyLoss(3, 4))
    ir["root"].data["options"] = options
    with pytest.raises(LayergraphError, match=r"acc_dtype|no_such_option"):
        lg.to_torch(ir)


def test_distances_are_said_by_type_or_name():
    def said(distance):
        return leaf(nn.TripletMarginWithDistanceLoss(distance_function=distance)).data.get(
            "distance_function"
        )

    assert said(nn.PairwiseDistance()) is None
    assert said(nn.PairwiseDistance(1.0)) == {"type": "pairwisedistance", "p": 1.0}
    assert said(nn.CosineSimilarity()) == {"type": "cosinesimilarity"}
    assert said(nn.functional.mse_loss) == "torch.nn.functional.mse_loss"


class OwnDistance(nn.PairwiseDistance):
    pass


def hooked_distance():
    distance = nn.PairwiseDistance()
    distance.register_forward_hook(lambda *_: None)
    return distance


@pytest.mark.parametrize(
    "distance",
    [lambda x, y: (x - y).abs().sum(-1), nn.Bilinear(4, 4, 1), OwnDistance(), hooked_distance()],
    ids=["lambda", "layer with weights", "subclass", "hooked"],
)
def test_other_distances_are_refused(distance):
    loss = nn.TripletMarginWithDistanceLoss(distance_function=distance)
    with pytest.raises(CaptureError, match=r"cannot hold|example inputs"):
        lg.to_ir(loss)


@pytest.mark.parametrize(
    "distance", ["torch.nn.functional.no_such", "os.system", {"type": "linear"}, {"p": 1.0}]
)
def test_what_is_no_distance_is_refused(distance):
    ir = lg.to_ir(nn.TripletMarginWithDistanceLoss())
    ir["root"].data["distance_function"] = distance
    with pytest.raises(LayergraphError, match="tripletmarginwithdistanceloss"):
        lg.to_torch(ir)


def test_hooks_inside_are_not_lost():
    loss = nn.AdaptiveLogSoftmaxWithLoss(16, 10, [3, 6])
    loss.head.register_forward_hook(lambda module, given, output: output + 1)
    with pytest.raises(CaptureError):
        lg.to_ir(loss)


def test_a_model_that_computes_its_losses_comes_back(round_trip):
    unused = {"weight": torch.rand(4)} if LinearLoss else {}

    class Judged(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(6, 4)
            self.classes = nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.1)
            self.others = nn.NLLLoss(self.classes.weight, reduction="none")
            self.unused = (LinearLoss or nn.Linear)(3, 4, **unused)
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(6, 12, [4, 8], div_value=2)

        def forward(self, x, target):
            output, adaptive = self.adaptive(x, target)
            x = self.body(x)
            own = self.others(x.log_softmax(1), target)
            return self.classes(x, target) + own.sum() + adaptive, output

    ir, rebuilt = round_trip(Judged(), torch.randn(5, 6), CLASSES)
    assert ir["adaptive"].type == "adaptivelogsoftmaxwithloss"
    assert rebuilt.others.weight is rebuilt.classes.weight
