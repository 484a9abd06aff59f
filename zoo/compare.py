"""One model, there and back, and all that must be as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import layergraph as lg
from layergraph_torchvision.layers import is_class as is_kept_whole
from zoo.difference import differences
from zoo.entry import Entry, Inputs

LIBRARIES = ("torchvision", "transformers")

# Name to batch, length and seed.
_CASES: dict[str, Callable[[Entry], tuple[int, int, int]]] = {
    "captured": lambda entry: (entry.sizes.batch, entry.sizes.length, 1),
    "fresh": lambda entry: (entry.sizes.batch, entry.sizes.length, 2),
    "other batch": lambda entry: (entry.sizes.other_batch, entry.sizes.length, 3),
    "other length": lambda entry: (entry.sizes.batch, entry.sizes.other_length, 4),
}
CHECKS = (*_CASES, "keys", "classes")

# From a model and its inputs to the rebuilt one and the seconds that capture took.
RoundTrip = Callable[[nn.Module, Inputs], tuple[nn.Module, float]]


@dataclass
class Outcome:
    """The result for a model. A check that the original itself fails is None."""

    name: str
    family: str
    checks: dict[str, bool | None] = field(default_factory=lambda: dict.fromkeys(CHECKS, False))
    reasons: list[str] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Return whether no check failed."""
        return False not in self.checks.values()


def there_and_back(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, float]:
    """The model that layergraph makes of a model, from plain data and tensors only."""
    start = time.perf_counter()
    ir = lg.to_ir(model, *inputs)
    seconds = time.perf_counter() - start
    return lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict()), seconds


def through_passes(
    model: nn.Module, inputs: Inputs, *, passes: Sequence[str]
) -> tuple[nn.Module, float]:
    """The model that layergraph makes of a model after passes, which should change no bit."""
    start = time.perf_counter()
    ir = lg.to_ir(model, *inputs)
    seconds = time.perf_counter() - start
    changed, state, _ = lg.run_passes(ir, passes, model.state_dict())
    return lg.to_torch(lg.Ir.from_dict(changed.to_dict()), state), seconds


def compare(entry: Entry, round_trip: RoundTrip = there_and_back) -> Outcome:
    """Make, convert and compare a model. Whatever goes wrong on the way is in the outcome."""
    outcome = Outcome(entry.name, entry.family)
    try:
        _compare(entry, round_trip, outcome)
    except Exception as error:
        outcome.reasons.append(_sentence(error))
    return outcome


def _compare(entry: Entry, round_trip: RoundTrip, outcome: Outcome) -> None:
    model = entry.model()
    # Before it is captured, which must not change it.
    expected = _expected(entry, model, outcome)
    keys = list(model.state_dict())
    rebuilt, outcome.seconds = round_trip(model, _inputs(entry, "captured"))
    for case, output in expected.items():
        outcome.checks[case] = _same(entry, case, rebuilt, output, outcome)
    outcome.checks["keys"] = keys == list(rebuilt.state_dict())
    if not outcome.checks["keys"]:
        outcome.reasons.append("state-dict keys differ or come in another order")
    strangers = sorted({type(each).__qualname__ for each in rebuilt.modules() if _is_theirs(each)})
    outcome.checks["classes"] = not strangers
    if strangers:
        outcome.reasons.append(f"left of its library: {', '.join(strangers)}")


def _expected(entry: Entry, model: nn.Module, outcome: Outcome) -> dict[str, Any]:
    """Return the outputs of the original in each case that it accepts."""
    expected = {"captured": _run(model, _inputs(entry, "captured"))}
    for case in list(_CASES)[1:]:
        try:
            expected[case] = _run(model, _inputs(entry, case))
        except Exception:
            outcome.checks[case] = None
    if "fresh" in expected and not any(differences(expected["captured"], expected["fresh"])):
        raise ValueError("the original gives the same whatever it is given: that compares nothing")
    return expected


def _same(entry: Entry, case: str, rebuilt: nn.Module, expected: Any, outcome: Outcome) -> bool:
    try:
        found = list(differences(expected, _run(rebuilt, _inputs(entry, case))))
    except Exception as error:
        outcome.reasons.append(f"{case}: {_sentence(error)}")
        return False
    outcome.notes |= {str(each) for each in found if not each.counts}
    counting = [each for each in found if each.counts]
    if counting:
        outcome.reasons.append(f"{case}: {counting[0]}")
    return not counting


def _inputs(entry: Entry, case: str) -> Inputs:
    return entry.inputs(*_CASES[case](entry))


def _run(model: nn.Module, inputs: Inputs) -> Any:
    args, kwargs = inputs
    # Some models draw, in evaluation mode too.
    torch.manual_seed(0)
    with torch.no_grad():
        return model(*args, **kwargs)


def _is_theirs(module: nn.Module) -> bool:
    cls = type(module)
    return cls.__module__.split(".")[0] in LIBRARIES and not is_kept_whole(cls)


def _sentence(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"
