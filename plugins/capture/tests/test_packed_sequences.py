"""Sequences of different lengths, packed: inside of a model, as its inputs, and as its outputs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpad_sequence,
)

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal


class Encoder(nn.Module):
    def __init__(self, kind, *, enforce_sorted=False, **options):
        super().__init__()
        self.rnn = kind(4, 5, batch_first=True, **options)
        self.enforce_sorted = enforce_sorted

    def forward(self, x, lengths):
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=self.enforce_sorted
        )
        output, state = self.rnn(packed)
        padded, sizes = pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
        return padded, sizes, state


class Packs(nn.Module):
    """Takes and gives packed sequences, and makes one by hand on the way."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.rnn = nn.GRU(4, 3)

    def forward(self, words):
        data = self.embed(words.data)
        packed = PackedSequence(
            data, words.batch_sizes, words.sorted_indices, words.unsorted_indices
        )
        output, last = self.rnn(packed)
        return output, last


KINDS = {
    "rnn": (nn.RNN, {}),
    "gru": (nn.GRU, {"bidirectional": True}),
    "lstm": (nn.LSTM, {"num_layers": 2, "proj_size": 2}),
}
GIVEN = (torch.randn(2, 3, 4), torch.tensor([2, 3]))
OTHER = (torch.randn(5, 7, 4), torch.tensor([4, 7, 1, 2, 7]))


def alike(one, other):
    return bitwise_equal(*(torch.utils._pytree.tree_leaves(each) for each in (one, other)))


@pytest.mark.parametrize("kind", KINDS)
def test_other_lengths_and_sizes_come_out_as_in_the_original(kind):
    cls, options = KINDS[kind]
    model = Encoder(cls, **options)
    ir = lg.to_ir(model, GIVEN)
    assert ir["rnn"].type == kind
    for rebuilt in (
        lg.to_torch(ir, model.state_dict()),
        lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict()),
        copy.deepcopy(lg.to_torch(ir.flatten(), model.state_dict())),
    ):
        assert alike(rebuilt(*GIVEN), model(*GIVEN))
        assert alike(rebuilt(*OTHER), model(*OTHER))


def test_through_a_file(tmp_path):
    model = Encoder(nn.LSTM)
    lg.save(lg.to_ir(model, GIVEN), tmp_path / "model.safetensors", model.state_dict())
    assert alike(lg.load_model(tmp_path / "model.safetensors")(*OTHER), model(*OTHER))


def test_sorted_lengths():
    model = Encoder(nn.GRU, enforce_sorted=True)
    rebuilt = lg.to_torch(lg.to_ir(model, (GIVEN[0], torch.tensor([3, 2]))), model.state_dict())
    given = OTHER[0], torch.tensor([7, 7, 4, 2, 1])
    assert alike(rebuilt(*given), model(*given))


def test_gradients():
    model = Encoder(nn.GRU)
    rebuilt = lg.to_torch(lg.to_ir(model, GIVEN), model.state_dict())
    for each in (model, rebuilt):
        each(*OTHER)[0].sum().backward()
    gradients = [each.grad for each in model.parameters()]
    assert alike([each.grad for each in rebuilt.parameters()], gradients)


def test_as_input_and_as_output():
    model = Packs()
    given = pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4, 5])])
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)), model.state_dict())
    other = pack_sequence([torch.tensor([1, 2, 3, 8]), torch.tensor([4, 5, 1]), torch.tensor([6])])
    for words in (given, other):
        output, last = rebuilt(words)
        wanted, wanted_last = model(words)
        assert type(output) is PackedSequence
        assert alike((tuple(output), last), (tuple(wanted), wanted_last))
    report = lg.verify(model, (given,))
    assert report.ok, report


def test_an_input_that_is_sorted_otherwise_is_refused():
    model = Packs()
    given = pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4, 5])])
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)), model.state_dict())
    other = pack_sequence([torch.tensor([4]), torch.tensor([1, 2])], enforce_sorted=False)
    with pytest.raises(AssumptionError, match="'words' was None"):
        rebuilt(other)
    with pytest.raises(AssumptionError, match="class of the input 'words' was 'PackedSequence'"):
        rebuilt(torch.tensor([1]))


def test_a_named_tuple_of_the_same_name_stays_what_it_is():
    record = lg.Ir.from_dict(lg.to_ir(Packs(), (pack_sequence([torch.tensor([1])]),)).to_dict())
    assert "PackedSequence" in str(record)


class PacksItself(nn.Module):
    """Packs and pads sequences that it gets one by one."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 3)

    def forward(self, one, other):
        output, (last, _) = self.rnn(pack_sequence([one, other], enforce_sorted=False))
        padded, lengths = pad_packed_sequence(output)
        return unpad_sequence(padded, lengths), last, pad_sequence([one, other], padding_value=1.5)


class InDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 3)

    def forward(self, batch):
        output, _ = self.rnn(batch["words"])
        return {"output": output, "data": output.data * 2, "sizes": batch["words"].batch_sizes}


class Replaces(nn.Module):
    def forward(self, words):
        return words._replace(data=words.data * 2), words.data.sum()


def _words(*lengths):
    return pack_sequence([torch.randn(each, 4) for each in lengths])


@pytest.mark.parametrize(
    ("make", "given", "other"),
    [
        (
            PacksItself,
            (torch.randn(2, 4), torch.randn(3, 4)),
            (torch.randn(7, 4), torch.randn(5, 4)),
        ),
        (InDict, ({"words": _words(3, 2)},), ({"words": _words(5, 4, 1)},)),
        (Replaces, (_words(3, 2),), (_words(5, 4, 1),)),
        (lambda: nn.LSTM(4, 3), (_words(3, 2),), (_words(5, 4, 1),)),
    ],
    ids=["packs itself", "in a dict", "replaces", "a layer alone"],
)
def test_packed_sequences_at_other_lengths_and_through_a_file(make, given, other, tmp_path):
    model = make()
    ir = lg.to_ir(model, given)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for each in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        for args in (given, other):
            assert alike(each(*args), model(*args))


class Nests(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.layout = layout

    def forward(self, one, other):
        nested = torch.nested.nested_tensor([one, other], layout=self.layout)
        return torch.nested.to_padded_tensor(self.lin(nested), 0.0)


def test_nested_tensors_inside_are_kept_and_jagged_ones_refused_by_name():
    given = torch.randn(2, 4), torch.randn(3, 4)
    model = Nests(torch.strided)
    rebuilt = lg.to_torch(lg.to_ir(model, given), model.state_dict())
    other = torch.randn(6, 4), torch.randn(1, 4)
    for args in (given, other):
        assert bitwise_equal(rebuilt(*args), model(*args))
    with pytest.raises(CaptureError, match=r"a jagged tensor.*pad the sequences") as it:
        lg.to_ir(Nests(torch.jagged), given)
    assert len(it.value.unsupported) == 1
