"""Checks that do not call the models: the IR, keys, ties, tensors, modes and casts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from layergraph.api import default_ir2torch
from layergraph.errors import LayergraphError
from layergraph.ir import Ir
from layergraph.tensors.memory import is_plain, unsuitable
from layergraph.tensors.state import is_channels_last
from layergraph_tools.verification.comparison import DifferenceError, compare, some
from layergraph_tools.verification.inputs import tensors_of
from layergraph_tools.verification.round_trip import RoundTrip, SkippedError, described
from layergraph_tools.verification.subject import Subject


def captured(trip: RoundTrip) -> str:
    """Capture a copy of the model."""
    model = trip.model
    if not isinstance(model, nn.Module):
        raise DifferenceError(f"{model!r} is not a torch.nn.Module")
    kinds = default_ir2torch().hooks.tensor_kinds
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        reason = unsuitable(tensor)
        if reason is not None and kinds.flatten(tensor) is None:
            raise DifferenceError(f"{key!r} {reason}")
    for tensor in tensors_of(trip.inputs):
        reason = unsuitable(tensor) if is_plain(tensor) else None
        if reason is not None:
            raise DifferenceError(f"an input {reason}")
    # A call may change the model in ways that cannot be undone, so we call only a copy.
    try:
        original = copy.deepcopy(model)
    except Exception as error:
        raise DifferenceError(
            f"verify runs a copy of the model, which cannot be copied: {described(error)}"
        ) from error
    trip.original = Subject(original, model, trip.devices)
    trip.ir = trip.capture(trip.original)
    trip.original.reset()
    return f"{len(trip.ir)} implementations"


def dict_form(trip: RoundTrip) -> str:
    """Read the IR back from its dict form."""
    ir = trip.captured()
    trip.read = Ir.from_dict(ir.to_dict())
    if trip.read != ir:
        raise DifferenceError("the IR that was read from the dict form differs")
    return ""


def rebuilt(trip: RoundTrip) -> str:
    """Build the model from the IR."""
    if trip.read is None:
        raise SkippedError("there is no IR")
    state = trip.model.state_dict()
    devices = {tensor.device for tensor in tensors_of(state)}
    trip.device = devices.pop() if len(devices) == 1 else None
    trip.rebuilt = trip.build(trip.read, state)
    return ""


def state_dict_keys(trip: RoundTrip) -> str:
    """Compare the keys of the state dicts, and their order."""
    was, now = (list(each.state()) for each in trip.both())
    missing = [key for key in was if key not in now]
    added = [key for key in now if key not in was]
    if missing or added:
        raise DifferenceError(f"missing: {some(missing)}; superfluous: {some(added)}")
    if was != now:
        moved = next(index for index, key in enumerate(was) if now[index] != key)
        raise DifferenceError(f"in another order, from {now[moved]!r} on")
    return f"{len(was)} keys"


def ties(trip: RoundTrip) -> str:
    """Compare the tensors that have several keys."""
    was, now = (each.ties() for each in trip.both())
    lost, made = (
        [" = ".join(sorted(names)) for names in one - other]
        for one, other in ((was, now), (now, was))
    )
    if lost or made:
        raise DifferenceError(f"lost: {some(lost)}; made: {some(made)}")
    if was:
        # A build takes long, and one tie is enough for this check.
        _refuse_two_values(trip, max(min(was, key=sorted)))
    return f"{len(was)} tensors under several keys" if was else ""


def _refuse_two_values(trip: RoundTrip, key: str) -> None:
    """Raise unless the build refuses a state dict with two values for one tensor."""
    state = trip.model.state_dict()
    other = state[key].detach().clone(memory_format=torch.contiguous_format)
    if not other.numel() or other.is_meta:
        return
    other.flatten().view(torch.uint8)[0] ^= 1
    try:
        trip.build(trip.captured(), {**state, key: other})
    except LayergraphError:
        return
    raise DifferenceError(f"the build accepts different values for {key} and the keys tied to it")


def tensors(trip: RoundTrip) -> str:
    """Compare the tensors of the state dicts, bit for bit, with dtypes, strides and classes."""
    was, now = (each.state() for each in trip.both())
    shared = [key for key in was if key in now]
    compare_descriptions({key: was[key] for key in shared}, now)
    return compare({key: was[key] for key in shared}, {key: now[key] for key in shared}, exact=True)


def own_classes(trip: RoundTrip) -> str:
    """Check that the rebuilt model needs no classes of the original's code."""
    original, rebuilt = trip.both()
    classes = {type(module) for module in original.module.modules()}
    own = [
        f"{type(module).__module__}.{type(module).__qualname__} at {name!r}"
        for name, module in rebuilt.module.named_modules()
        if type(module) in classes and type(module).__module__.partition(".")[0] != "torch"
    ]
    if own:
        raise DifferenceError(f"the rebuilt model still needs {some(own)}")
    return ""


def modes(trip: RoundTrip) -> str:
    """Compare the modes of all modules after ``train()`` and ``eval()``."""
    original, rebuilt = trip.both()
    was, now = original.modes(), rebuilt.modes()
    # A handler may build a layer from other submodules if it computes the same.
    shared = was.keys() & now.keys()
    compare({k: was[k] for k in was if k in shared}, {k: now[k] for k in was if k in shared})
    return f"{len({name.partition(' after ')[0] for name in shared})} modules and tensors"


def casts(trip: RoundTrip) -> str:
    """Compare the tensors' dtypes after casts of the models."""
    original, rebuilt = trip.both()
    try:
        was = original.casts()
    except Exception as error:
        raise SkippedError(f"the original refuses: {described(error)}") from error
    compare(was, rebuilt.casts())
    return f"{len(original.state())} tensors"


def _strides(tensor: torch.Tensor) -> object:
    """Return the order of a tensor's dimensions in memory, regardless of gaps."""
    if not is_plain(tensor) or not tensor.numel():
        return None
    dense = zip(tensor.shape, torch.empty_like(tensor, device="meta").stride(), strict=True)
    return [stride for size, stride in dense if size > 1], is_channels_last(tensor)


_DESCRIPTIONS: Mapping[str, Callable[[torch.Tensor], object]] = {
    "dtype": lambda tensor: tensor.dtype,
    "shape": lambda tensor: tuple(tensor.shape),
    "requires_grad": lambda tensor: tensor.requires_grad,
    "strides": _strides,
    "class": lambda tensor: type(tensor).__name__,
}


def compare_descriptions(was: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> None:
    """Raise if tensors differ in dtype, shape or another feature, apart from their values."""
    for key, tensor in was.items():
        for what, describe in _DESCRIPTIONS.items():
            one, other = describe(tensor), describe(now[key])
            if one != other:
                raise DifferenceError(f"{key}: {what} was {one}, and is {other}")
