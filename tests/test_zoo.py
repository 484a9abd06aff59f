"""A few models of the zoo, through the functions that ``make zoo`` runs on all of them."""

from __future__ import annotations

import copy
import dataclasses
from collections import namedtuple

import pytest
import torch
from torch import nn

from zoo import Entry, all_entries, matching
from zoo.compare import compare
from zoo.difference import differences
from zoo.entry import Sizes
from zoo.exceptions import EXPECTED
from zoo.report import unexpected

pytestmark = pytest.mark.slow

SELECTION = """
torchvision/resnet18
torchvision/vit_b_32
torchvision/mobilenet_v3_small
torchvision/lraspp_mobilenet_v3_large
torchvision/fasterrcnn_mobilenet_v3_large_320_fpn
torchvision/ssdlite320_mobilenet_v3_large
torchvision/raft_small
transformers/BertForSequenceClassification
transformers/DebertaV2Model
transformers/GPT2LMHeadModel
transformers/LlamaForCausalLM
transformers/MambaModel
transformers/MixtralForCausalLM
transformers/SwinModel
transformers/T5ForConditionalGeneration
transformers/CLIPModel
transformers/Wav2Vec2Model
transformers/WhisperModel
""".split()

ENTRIES = {each.name: each for each in all_entries()}


@pytest.mark.parametrize("name", SELECTION)
def test_comes_back(name):
    outcome = compare(ENTRIES[name])
    assert not unexpected([outcome], EXPECTED), "\n".join(outcome.reasons)
    # A model that is expected to fail on other inputs must work on those of the capture.
    assert outcome.checks["captured"]


def test_each_name_is_there_once():
    assert len(ENTRIES) == len(all_entries())


@pytest.mark.parametrize("pattern", ["torchvision/*net18", "*/bertformaskedlm", "*optical flow"])
def test_models_are_found_by_name_and_family(pattern):
    assert 0 < len(matching(all_entries(), pattern)) < 10


class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.dropout = nn.Dropout()

    def forward(self, x, *, twice):
        if x.shape[1] != 4:
            raise ValueError("four, please")
        y = self.dropout(self.linear(x))
        return {"y": y * 2 if twice else y, "nan": y / 0 * 0}


ENTRY = Entry(
    name="picky",
    family="of tests",
    make=Picky,
    make_inputs=lambda batch, length: ((torch.randn(batch, length, 3),), {"twice": True}),
    sizes=Sizes(length=4, other_length=5),
)


def _and(change):
    def round_trip(model, inputs):
        rebuilt = copy.deepcopy(model)
        change(rebuilt)
        return rebuilt, 0.0

    return round_trip


def _failed(outcome):
    return {name for name, passed in outcome.checks.items() if passed is False}


def test_what_the_original_refuses_does_not_count():
    outcome = compare(ENTRY, _and(lambda model: None))
    assert outcome.passed
    assert outcome.checks["other length"] is None
    assert outcome.checks["other batch"] is True


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.linear.weight.data.mul_(1 + 1e-6),
        lambda model: model.train(),
        lambda model: model.double(),
    ],
)
def test_what_computes_otherwise_fails(change):
    outcome = compare(ENTRY, _and(change))
    assert _failed(outcome) == {"captured", "fresh", "other batch"}
    assert outcome.reasons[0].startswith("captured: ")


def test_other_keys_fail():
    outcome = compare(ENTRY, _and(lambda model: model.register_buffer("more", torch.ones(1))))
    assert _failed(outcome) == {"keys"}


def test_classes_of_the_library_fail():
    def stranger(model):
        model.dropout.__class__ = type("Theirs", (nn.Dropout,), {"__module__": "torchvision.ops"})

    assert _failed(compare(ENTRY, _and(stranger))) == {"classes"}


def test_an_exception_is_a_failure():
    def refuse(model):
        raise RuntimeError("no\nway")

    outcome = compare(ENTRY, _and(refuse))
    assert not outcome.passed
    assert outcome.reasons == ["RuntimeError: no"]


def test_a_model_that_gives_the_same_for_all_inputs_is_no_evidence():
    entry = dataclasses.replace(
        ENTRY, make_inputs=lambda b, n: ((torch.ones(b, n, 3),), {"twice": 0})
    )
    assert not compare(entry, _and(lambda model: None)).passed


def test_exceptions_must_be_true():
    good, bad = compare(ENTRY, _and(lambda model: None)), compare(ENTRY, _and(lambda m: m.train()))
    assert unexpected([good, bad], {}) == [bad]
    assert unexpected([good, bad], {"picky": "reason"}) == [good]


Pair = namedtuple("Pair", "one other")
ONE, NAN = torch.ones(2), torch.tensor([torch.nan, 1])


@pytest.mark.parametrize(
    ("expected", "actual", "found"),
    [
        ({"a": [ONE, (NAN, None)]}, {"a": [ONE, (NAN, None)]}, []),
        (Pair(ONE, 2), Pair(ONE, 2), []),
        (Pair(ONE, 2), (ONE, 2), ["output: Pair became tuple"]),
        ([ONE], (ONE,), ["output: list became tuple"]),
        (ONE, NAN, ["output: 1 of 2 numbers differ"]),
        (
            ONE,
            ONE.double(),
            ["output: its dtype was torch.float32, and is torch.float64"],
        ),
        (ONE, None, ["output: <class 'torch.Tensor'> became <class 'NoneType'>"]),
        ({"a": ONE}, {"b": ONE}, ["output['b']: is new", "output['a']: is missing"]),
        ([1], [True], ["output[0]: <class 'int'> became <class 'bool'>"]),
    ],
)
def test_differences(expected, actual, found):
    assert [str(each) for each in differences(expected, actual)] == found


def test_what_is_remembered_is_compared_by_its_tensors():
    cache_class = pytest.importorskip("transformers").DynamicCache
    cache = cache_class()
    cache.update(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), 0)
    tensors = {"keys": torch.ones(1, 1, 2, 3), "values": torch.zeros(1, 1, 2, 3)}
    assert not list(differences({"cache": cache}, {"cache": tensors}))
    assert [each.counts for each in differences({"cache": cache}, {})] == [False]
    tensors["keys"][0] = 2
    assert [each.counts for each in differences({"cache": cache}, {"cache": tensors})] == [True]
