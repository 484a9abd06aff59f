"""Numbers of numpy in forward, and functions of numpy that get sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

# Each takes other sizes, too.
OF_SIZES = {
    "ceil": lambda x: x * np.ceil(x.shape[0] / 2),
    "floor": lambda x: torch.full((2,), np.floor(x.shape[0] / 2)),
    "trunc": lambda x: torch.tensor(np.trunc(x.shape[0] / 2)),
    "round": lambda x: x * np.round(x.shape[0] / 2),
    "sqrt": lambda x: torch.tensor(np.sqrt(x.shape[0])),
    "sqrt, and more": lambda x: torch.as_tensor(np.sqrt(x.shape[0]) * 2 + 1),
    "prod": lambda x: x.reshape(np.prod(x.shape)),
    "astype": lambda x: x[: np.ceil(x.shape[0] / 2).astype(int)],
    "a class of numpy": lambda x: x * (2 if isinstance(np.floor(x.shape[0] / 2), float) else 3),
    "int64": lambda x: x * (np.int64(7) // x.shape[0]),
    "power": lambda x: x * np.float64(2) ** x.shape[0],
    "compares": lambda x: x if x.shape[0] < np.int64(9) else x * 2,
    "of an array": lambda x: x * (np.arange(3) * x.shape[0])[1],
}
# Each is guarded.
OF_ONE_SIZE = {
    "float32, on the right": lambda x: x.double() * (x.shape[0] * np.float32(0.1)),
    "float32, on the left": lambda x: x.double() * (np.float32(0.1) * x.shape[0]),
    "int32": lambda x: torch.tensor(x.shape[0] * np.int32(2)),
    "hypot": lambda x: x * np.hypot(x.shape[0], 2),
    "divmod": lambda x: x * np.divmod(x.shape[0], 2)[0],
    "arange": lambda x: torch.from_numpy(np.arange(x.shape[0])),
    "ones": lambda x: torch.tensor(np.triu(np.ones((x.shape[0], x.shape[0])), k=1)),
}
OF_NO_SIZE = {
    "tensor": lambda x: x.sum() + torch.tensor(np.float64(1.5)),
    "as_tensor": lambda x: torch.as_tensor(np.float64(0.1)),
    "asarray": lambda x: torch.asarray(np.float32(0.1)),
    "int32": lambda x: torch.tensor(np.int32(1)),
    "in a list": lambda x: torch.tensor([1, np.float64(2)]),
    "in tuples": lambda x: torch.tensor(((np.float32(1), np.float32(2)), (1, 2))),
    "with a dtype": lambda x: torch.tensor(np.float64(0.1), dtype=torch.float16),
}


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def inputs(rows):
    return torch.arange(rows * 4).view(rows, 4), torch.randn(rows, 4)


@pytest.mark.parametrize(
    "function", [*OF_SIZES.values(), *OF_NO_SIZE.values()], ids=[*OF_SIZES, *OF_NO_SIZE]
)
def test_the_result_has_the_type_that_numpy_gives_it(function):
    model = Calls(function)
    for given in inputs(3):
        rebuilt = lg.to_torch(lg.to_ir(model, (given,)))
        for x in (given, *inputs(5)):
            if x.dtype == given.dtype:
                assert bitwise_equal(rebuilt(x), model(x))


@pytest.mark.parametrize("function", OF_ONE_SIZE.values(), ids=OF_ONE_SIZE)
def test_what_numbers_of_python_cannot_compute_is_guarded(function):
    model = Calls(function)
    given, other = inputs(3)[1], inputs(5)[1]
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)))
    assert bitwise_equal(rebuilt(given), model(given))
    with pytest.raises(AssumptionError):
        rebuilt(other)
