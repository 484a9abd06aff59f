"""Recurrent cells that people write themselves, over time: one capture serves other lengths."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from plugins.capture.tests.loop_cases import LoopCases, check_loop

CASES = LoopCases()
case = CASES.case


class OwnLSTMCell(nn.Module):
    """The equations of nn.LSTMCell, with the names of its parameters."""

    def __init__(self, width=4, hidden=4):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.randn(4 * hidden, width) / 2)
        self.weight_hh = nn.Parameter(torch.randn(4 * hidden, hidden) / 2)
        self.bias_ih = nn.Parameter(torch.randn(4 * hidden) / 2)
        self.bias_hh = nn.Parameter(torch.randn(4 * hidden) / 2)

    def forward(self, x, state):
        hidden, cell = state
        gates = F.linear(x, self.weight_ih, self.bias_ih)
        gates = gates + F.linear(hidden, self.weight_hh, self.bias_hh)
        enter, forget, new, leave = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class SLSTMCell(nn.Module):
    """Scalar memory with exponential gates, and the largest exponent so far as a stabilizer."""

    def __init__(self, width=4, hidden=4):
        super().__init__()
        self.given = nn.Linear(width, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)

    def forward(self, x, state):
        cell, norm, hidden, largest = state
        new, enter, forget, leave = (self.given(x) + self.recurrent(hidden)).chunk(4, dim=-1)
        forget = F.logsigmoid(forget)
        peak = torch.maximum(forget + largest, enter)
        enter, forget = torch.exp(enter - peak), torch.exp(forget + largest - peak)
        cell = forget * cell + enter * torch.tanh(new)
        norm = forget * norm + enter
        return cell, norm, torch.sigmoid(leave) * cell / norm.clamp(min=1e-6), peak


class MLSTMCell(nn.Module):
    """Matrix memory: keys and values in an outer product, read by a query."""

    def __init__(self, width=4, heads=2, size=3):
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(width, 3 * heads * size)
        self.gates = nn.Linear(width, 2 * heads)
        self.leave = nn.Linear(width, heads * size)

    def initial(self, x):
        memory = x.new_zeros(x.shape[0], self.heads, self.size, self.size)
        return memory, x.new_zeros(x.shape[0], self.heads, self.size), x.new_zeros(1)

    def forward(self, x, state):
        memory, norm, largest = state
        query, key, value = self.qkv(x).view(x.shape[0], 3, self.heads, self.size).unbind(1)
        key = key / self.size**0.5
        enter, forget = self.gates(x).chunk(2, dim=1)
        forget = F.logsigmoid(forget)
        peak = torch.maximum(forget + largest, enter)
        enter, forget = (enter - peak).exp()[..., None], (forget + largest - peak).exp()[..., None]
        memory = (
            forget[..., None] * memory + enter[..., None] * value[..., None] * key[..., None, :]
        )
        norm = forget * norm + enter * key
        read = torch.einsum("bhvk,bhk->bhv", memory, query)
        scale = torch.einsum("bhk,bhk->bh", norm, query).abs()
        read = read / torch.maximum(scale, torch.exp(-peak))[..., None]
        return torch.sigmoid(self.leave(x)) * read.flatten(1), (memory, norm, peak)


@case()
class OwnLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = OwnLSTMCell()

    def forward(self, x):
        state = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)
        outputs = []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state


@case()
class CellOfTorch(OwnLSTM):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(4, 4)


@case(loops=2)
class SLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = SLSTMCell()
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        zeros = torch.zeros_like(x[:, 0])
        state = zeros, zeros, zeros, zeros - torch.inf
        outputs = []
        for now in x.unbind(1):
            state = self.cell(now, state)
            outputs.append(self.drop(state[2]))
        return torch.stack(outputs, dim=1)


@case()
class MLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = MLSTMCell()

    def forward(self, x):
        state = self.cell.initial(x)
        outputs = torch.zeros(*x.shape[:2], 6)
        for step in range(x.shape[1]):
            outputs[:, step], state = self.cell(x[:, step], state)
        return outputs, state


@case(loops=2)
class XLSTM(nn.Module):
    """Blocks of both cells, each behind a norm and beside a residual path."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(4) for _ in range(2)])
        self.scalar, self.matrix = SLSTMCell(), MLSTMCell()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(6, 4)

    def forward(self, x):
        given = self.norms[0](x)
        zeros = x.new_zeros(x.shape[0], 4)
        state = zeros, zeros + 1, zeros, zeros
        outputs = []
        for step in range(x.shape[1]):
            state = self.scalar(given[:, step], state)
            outputs.append(state[2])
        x = x + self.up(torch.stack(outputs, 1))
        given = self.norms[1](x)
        state = self.matrix.initial(x)
        outputs = []
        for step in range(x.shape[1]):
            output, state = self.matrix(given[:, step], state)
            outputs.append(output)
        return x + self.down(F.silu(torch.stack(outputs, dim=1)))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@CASES.parametrized
def test_a_cell(case, training, tmp_path):
    check_loop(case, training, tmp_path)


@pytest.mark.parametrize("captured", [4, 7])
@pytest.mark.parametrize("length", [1, 4, 7, 30])
def test_a_cell_of_ones_own_is_that_of_torch(captured, length):
    torch.manual_seed(0)
    own, of_torch = OwnLSTM(), CellOfTorch()
    of_torch.load_state_dict(own.state_dict())
    ir = lg.to_ir(own, (torch.randn(2, captured, 4),))
    rebuilt = lg.to_torch(ir, of_torch.state_dict())
    x = torch.randn(3, length, 4)
    for mine, its in zip(_flat(rebuilt(x)), _flat(of_torch(x)), strict=True):
        torch.testing.assert_close(mine, its)


def _flat(result):
    outputs, (hidden, cell) = result
    return outputs, hidden, cell
