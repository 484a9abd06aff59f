"""Checks that call both models, on several inputs, in both modes and under other settings."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import nn

from layergraph.errors import AssumptionError, LayergraphError
from layergraph.tensors.memory import extent
from layergraph.torch2ir.results import opened
from layergraph_tools.verification.comparison import (
    DifferenceError,
    compare,
    compare_closely,
    told,
)
from layergraph_tools.verification.inputs import Inputs, changed, tensors_of
from layergraph_tools.verification.round_trip import RoundTrip, SkippedError, described
from layergraph_tools.verification.structure import compare_descriptions
from layergraph_tools.verification.subject import Subject, called_as_it_is, state_of
from layergraph_tools.verification.surroundings import (
    OTHER_SETTINGS,
    Surroundings,
    in_autocast,
    other_variables,
    variables_read,
    within_all,
)


def given_inputs(trip: RoundTrip) -> str:
    """Compare on the given inputs. The original must accept them."""
    inputs = trip.given()
    _, rebuilt = trip.both()
    with variables_read(trip.variables):
        call = trip.call(inputs)
    if isinstance(call.seen, Exception):
        raise DifferenceError(f"the original refuses: {described(call.seen)}") from call.seen
    was = call.seen
    try:
        now = rebuilt.seen(inputs, call.seed)
    except AssumptionError as error:
        raise DifferenceError(f"for the inputs of the capture: {described(error)}") from error
    trip.passed["given inputs"] = compare(was, now)
    return trip.passed["given inputs"]


def through_a_file(trip: RoundTrip) -> str:
    """Compare with a model that was saved and loaded."""
    original, _ = trip.both()
    from layergraph.api import default_ir2torch
    from layergraph.functions.names import Targets
    from layergraph_files.api import load_model, save
    from layergraph_files.unlisted import unlisted

    known = Targets(default_ir2torch().hooks.named_functions())
    names = sorted({str(name) for _, name in unlisted(trip.captured(), known)})
    if names:
        raise SkippedError(f"a file cannot hold {', '.join(names)}, which no plugin lists")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(trip.captured(), path, trip.model.state_dict())
        loaded = Subject(load_model(path, device=trip.device), trip.model, trip.devices)
        compared = compare(state_of(trip.model), dict(loaded.state()), exact=True)
        compare_descriptions(original.state(), loaded.state())
        # The alignment of a weight decides how the kernel for an input of one row rounds.
        _compare_places(original.state(), loaded.state())
        call = trip.last
        if call is None or isinstance(call.seen, Exception):
            return compared
        return compare(call.seen, loaded.seen(call.inputs, call.seed))


def captured_without_inputs(trip: RoundTrip) -> str:
    """Compare with a model that was captured without inputs, if that is possible."""
    trip.given()
    if all(each.type != "module" for each in trip.captured().values()):
        return "no code is captured"
    try:
        ir = trip.trace()
    except LayergraphError as error:
        raise SkippedError(f"that capture fails: {described(error)}") from error
    if ir == trip.captured():
        return "it is the same IR"
    call = trip.last
    if call is None or isinstance(call.seen, Exception):
        raise SkippedError("the original refuses the inputs")
    trip.without = ir
    return compare(call.seen, trip.build(ir).seen(call.inputs, call.seed))


def called_again(trip: RoundTrip) -> str:
    """Compare the second of two calls in a row."""
    inputs = trip.given()
    if "given inputs" in trip.passed:
        # Use fresh inputs for the second call: if it passes, two checks are done in one.
        with suppress(Exception):
            fresh = changed(inputs, trip.draw)
            trip.passed["fresh inputs"] = trip.compare_calls(fresh, goes_on=True)
            return trip.passed["fresh inputs"]
    return trip.compare_calls(inputs, calls=2)


def fresh_inputs(trip: RoundTrip) -> str:
    """Compare on random inputs like the given ones."""
    if "fresh inputs" in trip.passed:
        return trip.passed["fresh inputs"]
    return _on_other_inputs(trip, changed(trip.given(), trip.draw))


def another_batch_size(trip: RoundTrip) -> str:
    """Compare on inputs of twice the batch size."""
    inputs = trip.given()
    sizes = Counter(tensor.shape[0] for tensor in tensors_of(inputs) if tensor.ndim)
    if not sizes:
        raise SkippedError("no input has a size")
    # Take the most frequent first size for the batch size.
    size = sizes.most_common(1)[0][0]

    def doubled(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or tensor.shape[0] != size:
            return tensor
        return torch.cat([tensor, trip.draw(tensor)])

    detail = _on_other_inputs(trip, changed(inputs, doubled, packed=False))
    return f"{2 * size} instead of {size}; {detail}"


def evaluation(trip: RoundTrip) -> str:
    """Compare in evaluation mode."""
    inputs = trip.given()
    both = trip.both()
    # If the model is in evaluation mode, an earlier check has called it in that mode.
    is_known = "given inputs" in trip.passed and all(each.is_in(False) for each in both)
    if is_known and not both[0].switches():
        return trip.passed["given inputs"]
    return trip.compare_calls(inputs, training=False)


def training(trip: RoundTrip) -> str:
    """Compare in training mode, with gradients."""
    return trip.compare_calls(trip.given(), training=True)


def other_settings(trip: RoundTrip) -> str:
    """Compare under other settings of torch."""
    return _in_each(trip, OTHER_SETTINGS)


def autocast(trip: RoundTrip) -> str:
    """Compare in autocast."""
    return trip.compare_calls(trip.given(), within=partial(in_autocast, trip.devices))


def other_environment(trip: RoundTrip) -> str:
    """Compare with other values of the environment variables that the model reads."""
    trip.given()
    if not trip.variables:
        return "no variable is read"
    return _in_each(
        trip, {name: partial(other_variables, {name}) for name in sorted(trip.variables)}
    )


def in_wrappers(model: object, trip: RoundTrip) -> str:
    """Compare the outputs in evaluation mode with those of the model in its wrappers.

    Wrappers may compute in another order, so the comparison allows rounding errors.
    """
    inputs = trip.given()
    _, rebuilt = trip.both()
    if not isinstance(model, nn.Module):
        raise SkippedError(f"one process alone cannot call a {type(model).__name__}")
    rebuilt.reset()
    number = trip.seed()
    was, now = (
        dict(told("output", opened(called_as_it_is(each, inputs, number, trip.devices))))
        for each in (model, rebuilt.module)
    )
    return compare_closely(was, now)


def _in_each(trip: RoundTrip, surroundings: Mapping[str, Surroundings]) -> str:
    """Compare in several surroundings at once; if that does not pass, in each of them.

    If some of the single comparisons pass, others fail and others are refused, the check fails;
    without a failure, it is refused.
    """
    inputs = trip.given()
    with suppress(Exception):
        return trip.compare_calls(inputs, within=partial(within_all, surroundings.values()))
    passed, skipped = [], []
    refused: AssumptionError | None = None
    for name, within in surroundings.items():
        try:
            passed.append(f"{name}: {trip.compare_calls(inputs, within=within)}")
        except SkippedError as error:
            skipped.append(f"{name}: {error}")
        except AssumptionError as error:
            refused = refused or error
        except Exception as error:
            text = str(error) if isinstance(error, DifferenceError) else described(error)
            raise DifferenceError(f"{name}: {text}") from error
    if refused is not None:
        raise refused
    if not passed:
        raise SkippedError("; ".join(skipped))
    return "; ".join([*passed, *skipped])


def _on_other_inputs(trip: RoundTrip, inputs: Inputs) -> str:
    """Compare on other inputs. If the original refuses them, the rebuilt models must, too."""
    try:
        return trip.compare_calls(inputs)
    except SkippedError as refusal:
        _, rebuilt = trip.both()
        subjects: dict[str, Callable[[], Subject]] = {"the rebuilt model": lambda: rebuilt}
        if trip.without is not None:
            subjects["the model of a capture without inputs"] = partial(trip.build, trip.without)
        for name, subject in subjects.items():
            if trip.accepts(subject(), inputs):
                raise DifferenceError(f"{refusal}; {name} accepts them") from None
        raise


def _compare_places(was: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> None:
    """Raise if a tensor is not aligned to 64 bytes although the original is."""
    for key, tensor in now.items():
        begins = [place[1] % 64 for each in (was[key], tensor) if (place := extent(each))]
        if begins[:1] == [0] and any(begins):
            raise DifferenceError(f"the address of {key} is not a multiple of 64")
