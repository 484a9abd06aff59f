"""Torch's own collections of test cases as traps. As a script, it prints the outcomes of one.

The import of ``torch.testing._internal`` changes flags of torch, so that tests run this script in a
new process.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils import _pytree as pytree

from core.tests.traps.harness import Trap, explore
from layergraph.errors import LayergraphError

BASES = {
    "exportdb": "torch._export.db.examples",
    "hop_db": "torch.testing._internal.hop_db",
    "custom_op_db": "torch.testing._internal.custom_op_db",
    "autograd_function_db": "torch.testing._internal.autograd_function_db",
}


class Calls(nn.Module):
    """A model that calls the function of a case, with more arguments after those of the call."""

    def __init__(self, function, *own):
        super().__init__()
        self.function = function
        self.own = own

    def forward(self, *args, **kwargs):
        return self.function(*args, *self.own, **kwargs)


def cases(base: str) -> Iterator[tuple[str, Trap]]:
    """Yield the cases of a collection whose original runs on this machine, as traps."""
    module = importlib.import_module(BASES[base])
    if base == "exportdb":
        for name, case in module.all_examples().items():
            given, kwargs = tuple(case.example_args), dict(case.example_kwargs)
            yield name, _trap(case.model, given, kwargs)
        return
    for operation in getattr(module, base):
        for needs_gradient in (False, True):
            samples = operation.sample_inputs("cpu", torch.float32, requires_grad=needs_gradient)
            for number, sample in enumerate(samples):
                given = sample.input, *sample.args
                end = next((n for n, each in enumerate(given) if not _is_data(each)), len(given))
                kind = "with gradients" if needs_gradient else "plain"
                name = f"{operation.name} {operation.variant_test_name} {number}, {kind}"
                model = Calls(operation.op, *given[end:])
                if _runs(model, given[:end], sample.kwargs):
                    yield name, _trap(model, given[:end], dict(sample.kwargs))


def _is_data(value) -> bool:
    plain = torch.Tensor | int | float | str | None
    return all(isinstance(each, plain) for each in pytree.tree_leaves(value))


def _runs(model, given, kwargs) -> bool:
    try:
        model(*copy.deepcopy(given), **kwargs)
    except Exception:
        return False
    return True


def _trap(model, given, kwargs) -> Trap:
    return Trap(lambda: copy.deepcopy(model), given, [], "exact", kwargs=kwargs, pickled=False)


def outcome(trap: Trap) -> dict[str, str]:
    """Return the situations in which results differ, the refusal, or a foreign error."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            found = explore(trap)
        except LayergraphError as error:
            found = {"capture": f"refused: {error}"}
        except Exception as error:
            found = {"capture": f"WRONG {type(error).__name__}: {error}"}
    found |= {f"warning {each.filename} {each.message}": "WRONG" for each in heard}
    return {where: what for where, what in found.items() if what != "same"}


if __name__ == "__main__":
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    torch.manual_seed(0)
    found = {}
    for name, trap in cases(sys.argv[1]):
        if wanted in name:
            torch._dynamo.reset()
            found[name] = outcome(trap)
    print(json.dumps(found, indent=1))
