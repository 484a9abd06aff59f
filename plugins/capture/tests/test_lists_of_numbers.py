"""Lists of the numbers in a tensor: each number of the list is a value of the graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check
from layergraph.errors import AssumptionError

TRAPS = Traps()
COUNTS = torch.tensor([2, 1, 3])


def _draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _calls(*lists):
    return [(_draw(6, 4), torch.tensor(each)) for each in lists]


def exact(*lists, given=COUNTS):
    return TRAPS.exact((_draw(6, 4), given), _calls(*lists))


def assumes(*lists, given=COUNTS):
    return TRAPS.assumes((_draw(6, 4), given), _calls(*lists))


@exact([1, 4, 1], [4, 1, 1], [6, 0, 0])
class Splits(Base):
    def forward(self, x, counts):
        return [self.lin(part).sum(0) for part in x.split(counts.tolist())]


@exact([1, 4, 2], [6, 6, 6])
class PadsParts(Base):
    def forward(self, x, counts):
        return nn.utils.rnn.pad_sequence([self.lin(x[:count]) for count in counts.tolist()])


@exact([1, 4, 2], [5, 2, 2])
class ReadsInForward(Base):
    def forward(self, x, counts):
        first, *others = counts.tolist()
        return self.lin(x[:first]), sum(others), sorted(others), counts.tolist()


@exact([[1, 1], [3, 1]], [[4, 2], [1, 1]], given=torch.tensor([[2, 3], [1, 2]]))
class Grids(Base):
    def forward(self, x, grids):
        return [
            self.lin(torch.zeros(height, width, 4)) + x.sum() for height, width in grids.tolist()
        ]


@exact([0.25, -1.0], given=torch.tensor([1.5, 2.5]))
class Scales(Base):
    def forward(self, x, numbers):
        scale, shift = numbers.tolist()
        return F.relu(self.lin(x)) * scale + shift


@exact([1, 4, 2], [3, 3, 3], [0, 0, 5])
class DecidesByEach(Base):
    def forward(self, x, counts):
        return [self.lin(x) if count > 2 else x[:count] for count in counts.tolist()]


@exact([1, 4, 2], [3, 3, 3])
class ChangesTheList(Base):
    def forward(self, x, counts):
        numbers = counts.tolist()
        numbers[0] += 1
        numbers.append(2)
        counts.fill_(1)
        return [self.lin(x[:number]) for number in numbers], counts.tolist()


@assumes([2, 1, 0], [1, 1, 3])
class KeepsNumbersAsKeys(Base):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({str(number): nn.Linear(4, 4) for number in range(4)})

    def forward(self, x, counts):
        return [self.heads[str(number)](x) for number in counts.tolist()]


@assumes([True, True], given=torch.tensor([True, False]))
class TruthValues(Base):
    def forward(self, x, truths):
        return [self.lin(x) if truth else x for truth in truths.tolist()]


@assumes([*range(1, 101)], given=torch.arange(100))
class LongList(Base):
    def forward(self, x, numbers):
        return self.lin(x) * sum(numbers.tolist())


@assumes([2, 4], given=COUNTS)
class OtherLength(Base):
    def forward(self, x, counts):
        return self.lin(x) * len(counts.tolist())


@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])


class Packed(nn.Module):
    """Sequences one after the other, each with its own number of rows."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, counts):
        start, means = 0, []
        for count in counts.tolist():
            means.append(self.lin(x[start : start + count]).mean(0))
            start += count
        return torch.stack(means)


@pytest.mark.parametrize("counts", [[1, 1, 2, 1, 1], [2, 2, 2], [1, 2, 1, 1, 1, 1, 2], [4, 5]])
def test_a_loop_over_a_list_serves_other_lengths(counts, tmp_path):
    model = Packed()
    ir = lg.to_ir(model, (torch.randn(6, 4), torch.tensor([1, 1, 2, 1, 1])))
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    rebuilt = lg.load_model(tmp_path / "model.safetensors")
    given = torch.randn(sum(counts), 4), torch.tensor(counts)
    assert torch.equal(rebuilt(*given), model(*given))


class OfComplex(nn.Module):
    def forward(self, x, numbers):
        return x * numbers.tolist()[0]


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128])
def test_complex_numbers_are_guards(dtype):
    model, x = OfComplex(), torch.ones(2)
    rebuilt = lg.to_torch(lg.to_ir(model, (x, torch.tensor([1 + 1j], dtype=dtype))))
    same = torch.tensor([1 + 1j], dtype=dtype)
    assert torch.equal(rebuilt(x, same), model(x, same))
    with pytest.raises(AssumptionError):
        rebuilt(x, torch.tensor([2 + 1j], dtype=dtype))
