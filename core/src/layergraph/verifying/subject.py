"""One of the models that are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.overrides import without_memory
from layergraph.torch2ir.running.outputs import opened
from layergraph.verifying.comparison import told
from layergraph.verifying.inputs import Inputs, copied
from layergraph.verifying.surroundings import restored, seed, state


class Subject:
    """A model that is as it was at the beginning whenever it is run.

    Args:
        module: the model.
        source: a model with the same state-dict keys, which is not changed.
        devices: the numbers of the CUDA devices that it may draw random numbers on.
        opens: whether it returns objects of libraries, which are compared by what they hold.
    """

    def __init__(
        self, module: nn.Module, source: nn.Module, devices: Collection[int], *, opens: bool = False
    ) -> None:
        self.module = module
        self._devices = devices
        self._opens = opens
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
        """The tensors of the state dict, themselves."""
        found = self.module.state_dict(keep_vars=True)
        return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}

    def ties(self) -> set[frozenset[str]]:
        """The keys of each tensor that has several."""
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
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, object]:
        """All that can be seen of a call, by name; of tensors, only until the next call.

        Args:
            inputs: what it is called with; it is not changed.
            number: the seed.
            training: the mode of all modules, with gradients where that is training; None for the
                modes that they were given in.
            calls: how often it is called; the last call is compared.
            within: what it is called in.
        """
        self.reset()
        if training is not None:
            self.module.train(training)
        with (
            restored(),
            torch.set_grad_enabled(bool(training) or torch.is_grad_enabled()),
            within(),
        ):
            seed(number, self._devices)
            for _ in range(calls):
                args, kwargs = copied(inputs)
                outputs = self.module(*args, **kwargs)
            # Objects of libraries come back in plain containers.
            outputs = opened(outputs) if self._opens else outputs
            seen = dict(told("output", outputs))
            if training:
                _backward(seen)
            outside = state(self._devices)
        # A model may work in place on what it is given, too.
        seen.update(told("input", opened([args, kwargs])))
        seen.update({f"{name}, afterwards": each for name, each in outside.items()})
        for key, tensor in self.state().items():
            seen[f"{key}, afterwards"] = tensor.detach()
            if training:
                seen[f"gradient of {key}"] = tensor.grad
        return seen

    def modes(self) -> dict[str, object]:
        """The mode of each module, and what wants gradients, after train() and eval()."""
        self.reset()
        found: dict[str, object] = {}
        switches = {"train()": self.module.train, "eval()": self.module.eval}
        for name, switch in [*switches.items(), *switches.items()]:
            switch()
            for path, each in self.module.named_modules():
                found[f"{path or 'itself'} after {name}: training"] = each.training
            for key, tensor in self.state().items():
                found[f"{key} after {name}: requires_grad"] = tensor.requires_grad
        self.reset()
        return found

    def casts(self) -> dict[str, object]:
        """Each tensor's description after the model was cast, or frozen; tried without memory."""
        found: dict[str, object] = {}
        for name, change in _CHANGES.items():
            tried = without_memory(self.module)
            change(tried)
            for key, tensor in tried.state_dict(keep_vars=True).items():
                if isinstance(tensor, torch.Tensor):
                    found[f"{key} after {name}: dtype"] = tensor.dtype
                    found[f"{key} after {name}: requires_grad"] = tensor.requires_grad
        return found

    def reset(self) -> None:
        """Make it what it was at the beginning."""
        with torch.no_grad():
            for tensor, start in self._starts:
                tensor.copy_(start)
                tensor.grad = None
        for module, mode in self._modes:
            module.training = mode


_CHANGES: Mapping[str, Callable[[nn.Module], object]] = {
    "double()": lambda module: module.double(),
    "to(torch.bfloat16)": lambda module: module.to(torch.bfloat16),
    "requires_grad_(False)": lambda module: module.requires_grad_(False),
}


def _backward(seen: Mapping[str, object]) -> None:
    wanting = [
        each for each in seen.values() if isinstance(each, torch.Tensor) and each.requires_grad
    ]
    torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])
