"""One of the two models of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from layergraph.tensors.state import all_tensors
from layergraph.torch2ir.indexing.overrides import overridden, twin_without_memory, without_memory
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.state.global_state import snapshot
from layergraph_tools.verification.comparison import told
from layergraph_tools.verification.inputs import Inputs, copied
from layergraph_tools.verification.surroundings import seed, settings_restored, state


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of the state dict of a module, not detached."""
    found = module.state_dict(keep_vars=True)
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


class Subject:
    """A model that is reset to its first state before each run.

    Args:
        module: the model.
        source: a model with the same state-dict keys that never runs; resets copy its tensors.
        devices: the numbers of the CUDA devices whose random state the model may use.
    """

    def __init__(self, module: nn.Module, source: nn.Module, devices: Collection[int]) -> None:
        self.module = module
        self._devices = devices
        values = source.state_dict()
        starts = {
            id(tensor): (tensor, values[key])
            for key, tensor in self.state().items()
            if key in values and values[key].shape == tensor.shape
        }
        for tensor in (*module.parameters(), *module.buffers()):
            starts.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        self._starts = list(starts.values())
        self._modes = [(each, each.training) for each in module.modules()]

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the state dict, not detached."""
        return state_of(self.module)

    def ties(self) -> set[frozenset[str]]:
        """Return the keys of each tensor that has several keys."""
        names: dict[int, set[str]] = {}
        for key, tensor in self.state().items():
            names.setdefault(id(tensor), set()).add(key)
        return {frozenset(each) for each in names.values() if len(each) > 1}

    def seen(
        self,
        inputs: Inputs,
        number: int,
        *,
        training: bool | None = None,
        calls: int = 1,
        goes_on: bool = False,
        within: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> dict[str, object]:
        """Call the model, and return the outputs, gradients and side effects by name.

        The tensors are valid until the next call.

        Args:
            inputs: the arguments of the call, which stay unchanged.
            number: the seed.
            training: the mode of all modules; True also computes gradients. None: the modes in
                which the user passed them.
            calls: the number of calls; the result is that of the last one.
            goes_on: True: keep the state that the last call left. False: reset the model first.
            within: a context manager to call the model in. Attributes that such a call assigns are
                restored.
        """
        if not goes_on:
            self.reset()
        if training is not None:
            self.module.train(training)
        with (
            settings_restored(),
            torch.set_grad_enabled(bool(training) or torch.is_grad_enabled()),
            nullcontext() if within is None else self._forgetting(),
            nullcontext() if within is None else within(),
        ):
            before = snapshot()
            seed(number, self._devices)
            for _ in range(calls):
                args, kwargs = copied(inputs)
                outputs = self.module(*args, **kwargs)
            # Compare objects of libraries by their content, in plain containers.
            outputs = opened(outputs)
            seen = dict(told("output", outputs))
            if training:
                _backward(seen)
            outside = state(self._devices, before)
        # A model may also change its inputs in place.
        inside = dict(told("input", opened([args, kwargs])))
        seen.update(inside)
        if training:
            for name, each in inside.items():
                if isinstance(each, torch.Tensor) and each.is_leaf:
                    seen[f"gradient of {name}"] = each.grad
        seen.update({f"{name}, afterwards": each for name, each in outside.items()})
        for key, tensor in self.state().items():
            seen[f"{key}, afterwards"] = tensor.detach()
            if training:
                seen[f"gradient of {key}"] = tensor.grad
        return seen

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Restore the attributes that a call assigns, such as tables in another dtype.

        Use this only after a first call. A first call may also register hooks outside the model,
        which would stay while the attributes that belong to them are gone.
        """
        own = [vars(each) for each in self.module.modules()]
        held = own + [each[name] for each in own for name in _REGISTERED]
        before = [each.copy() for each in held]
        try:
            yield
        finally:
            for each, was in zip(held, before, strict=True):
                each.clear()
                each.update(was)

    def modes(self) -> dict[str, object]:
        """Return the mode of each module and each requires_grad after train() and eval()."""
        self._reset_modes()
        found: dict[str, object] = {}
        switches = {"train()": self.module.train, "eval()": self.module.eval}
        for name, switch in [*switches.items(), *switches.items()]:
            switch()
            for path, each in self.module.named_modules():
                found[f"{path or 'itself'} after {name}: training"] = each.training
            for key, tensor in self.state().items():
                found[f"{key} after {name}: requires_grad"] = tensor.requires_grad
        return found

    def casts(self) -> dict[str, object]:
        """Return each tensor's dtype and requires_grad after casts, on a copy without memory."""
        found: dict[str, object] = {}
        tried = _to_try(self.module)
        for name, change in _CHANGES.items():
            change(tried)
            for key, tensor in tried.state_dict(keep_vars=True).items():
                if isinstance(tensor, torch.Tensor):
                    found[f"{key} after {name}: dtype"] = tensor.dtype
                    found[f"{key} after {name}: requires_grad"] = tensor.requires_grad
        return found

    def is_in(self, mode: bool) -> bool:
        """Return whether the user passed all modules in one mode."""
        return all(was is mode for _, was in self._modes)

    def switches(self) -> bool:
        """Return whether a module overrides train() or eval()."""
        return any(overridden(each) & _OF_MODES for each in self.module.modules())

    def reset(self) -> None:
        """Restore the first values of all tensors and the first modes, and drop gradients."""
        with torch.no_grad():
            for tensor, start in self._starts:
                tensor.copy_(start)
                tensor.grad = None
        self._reset_modes()

    def _reset_modes(self) -> None:
        for module, mode in self._modes:
            module.training = mode


def called_as_it_is(
    module: nn.Module, inputs: Inputs, number: int, devices: Collection[int]
) -> Any:
    """Call a model once in evaluation mode without gradients, and restore modes and buffers.

    Args:
        module: the model.
        inputs: the arguments of the call, which stay unchanged.
        number: the seed.
        devices: as for :class:`Subject`.
    """
    modes = [(each, each.training) for each in module.modules()]
    buffers = [(each, each.detach().clone()) for each in module.buffers()]
    args, kwargs = copied(inputs)
    seed(number, devices)
    try:
        with torch.no_grad():
            return module.eval()(*args, **kwargs)
    finally:
        for each, mode in modes:
            each.training = mode
        with torch.no_grad():
            for buffer, start in buffers:
                buffer.copy_(start)


_OF_MODES = frozenset({"train", "eval"})
_REGISTERED = ("_parameters", "_buffers", "_modules")
# The methods that casts and requires_grad_ call.
_OF_CASTS = frozenset(
    "_apply bfloat16 double requires_grad_ to parameters named_parameters buffers named_buffers "
    "children named_children modules named_modules".split()
)
_CHANGES: Mapping[str, Callable[[nn.Module], object]] = {
    "double()": lambda module: module.double(),
    "to(torch.bfloat16)": lambda module: module.to(torch.bfloat16),
    "requires_grad_(False)": lambda module: module.requires_grad_(False),
}


def _backward(seen: Mapping[str, object]) -> None:
    wanting = [
        each for each in seen.values() if isinstance(each, torch.Tensor) and each.requires_grad
    ]
    # In a forked process, torch recreates its pool of threads on first use. The threads that
    # compute gradients would do that at the same time, which ends the process. So do it here first.
    torch.set_num_threads(torch.get_num_threads())
    torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])


def _to_try(module: nn.Module) -> nn.Module:
    """Return a copy without memory, to cast. It shares what casts do not change, such as graphs."""
    if any(overridden(each) & _OF_CASTS for each in module.modules()):
        return without_memory(module)
    twins: dict[int, torch.Tensor | None] = {id(None): None}
    for _, tensor, _ in all_tensors(module):
        twins[id(tensor)] = twin_without_memory(tensor)
    # Copying the graphs of a large model would take longer than building it.
    copies: dict[int, Any] = {id(None): None}
    for each in module.modules():
        copies[id(each)] = copied = object.__new__(type(each))
        copied.__dict__ = vars(each).copy()
    for copied in copies.values():
        for name, of in zip(_REGISTERED, (twins, twins, copies), strict=True):
            if copied is not None:
                held = copied.__dict__[name]
                copied.__dict__[name] = {key: of[id(value)] for key, value in held.items()}
    return copies[id(module)]  # type: ignore[no-any-return]
