"""Construction of the tensors of modules from their specs, on one device, with ties."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from layergraph.errors import BuildError, Place, PluginError
from layergraph.ir import Implementation, Ir, Packing, TensorSpec
from layergraph.ir2torch.build_context import refusals
from layergraph.ir2torch.deferred_init import DeferredInit
from layergraph.ir2torch.holder import Holder
from layergraph.ir2torch.paths import descend, find
from layergraph.ir2torch.submodules import owner_of
from layergraph.tensors.hidden_states import hidden_states
from layergraph.tensors.kinds import TensorKinds
from layergraph.tensors.state import (
    all_tensors,
    as_parameter,
    dtype_of,
    from_spec,
    own_tensors,
    replace,
    restrided,
    usual_dtype,
)


class TensorBuilder:
    """Makes and moves the tensors of modules.

    Args:
        device: the device of the tensors.
        kinds: the kinds of tensors that are made of parts.
        fills: the deferred initial weights.
        weights_follow: whether a state dict replaces tensors of parts.

    Attributes:
        values: on the meta device, the tensors that have values, and these values on the CPU.
    """

    def __init__(
        self,
        device: torch.device,
        kinds: TensorKinds,
        fills: DeferredInit,
        *,
        weights_follow: bool,
    ) -> None:
        self._device = device
        self._kinds = kinds
        # Zeros may be invalid parts of a tensor, such as the indices of a sparse one.
        self._waiting = torch.device("meta") if weights_follow else device
        self._owners: dict[int, Place] = {}
        self._fills = fills
        self.values: list[tuple[torch.Tensor, torch.Tensor]] = []

    def apply(self, module: nn.Module, name: str, spec: TensorSpec, where: Place) -> None:
        """Make a new tensor by its spec, or change the one that the constructor made."""
        *way, last = name.split(".")
        owner = descend(module, way)
        made = None if owner is None else getattr(owner, last, None)
        if spec.packed is not None and owner is not None:
            self._pack(owner, last, spec, spec.packed, where)
        elif isinstance(made, torch.Tensor):
            if spec.value is not None and owner is not None and last in hidden_states(owner):
                # The buffer has the shape of the last inputs. We check the number of bytes first.
                kept = value_for(made, spec, where, self._device)
                made.data = made.new_zeros(kept.shape)
            self._change(made, spec, where)
        elif spec.kind is None or owner is None:
            raise BuildError(f"{where}: the layer has no such tensor; correct the name")
        else:
            _register(owner, last, self._placed(from_spec(spec, where, self._device)), spec)

    def _pack(
        self, owner: nn.Module, name: str, spec: TensorSpec, packed: Packing, where: Place
    ) -> None:
        """Make a tensor of its parts, and replace the plain one that the constructor made."""
        found = getattr(owner, name, None)
        made = found if isinstance(found, torch.Tensor) else None
        if made is None and spec.kind is None:
            raise BuildError(f"{where}: the layer has no such tensor; correct the name")
        has_values = any(each.value is not None for each in packed.parts.values())
        device = self._device if has_values else self._waiting
        parts = {
            part: from_spec(each, where.at("part", part), device)
            for part, each in packed.parts.items()
        }
        value = None
        try:
            if has_values and device.type == "meta":
                value = self._kinds.unflatten(packed.kind, parts, packed.data)
            parts = {part: each.to(device) for part, each in parts.items()}
            tensor = self._kinds.unflatten(packed.kind, parts, packed.data)
        except BuildError as error:
            without = "" if has_values or device.type == "meta" else " (zeros: give a state dict)"
            raise BuildError(f"{where}: {error}{without}") from error.__cause__
        shape = tuple(made.shape) if made is not None and spec.shape is None else spec.shape
        usual = torch.float32 if made is None else usual_dtype(made.dtype)
        dtype = dtype_of(spec, where) or usual
        if (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
            raise BuildError(
                f"{where}: its parts make a {tensor.dtype} of shape {tuple(tensor.shape)} where "
                f"{dtype} of {shape} is wanted; correct them"
            )
        if spec.kind == "parameter" or isinstance(made, nn.Parameter):
            tensor = as_parameter(tensor, requires_grad=spec.requires_grad is not False)
        if value is not None:
            self.values.append((tensor, value))
        if made is not None:
            self._fills.forget([made])
            self._owners.pop(id(made), None)  # another tensor may get the id
            replace(owner, name, tensor)
        else:
            _register(owner, name, tensor, spec)

    def _change(self, tensor: torch.Tensor, spec: TensorSpec, where: Place) -> None:
        if spec.shape is not None and spec.shape != tuple(tensor.shape):
            raise BuildError(
                f"{where}: its shape is {spec.shape}, but the layer makes {tuple(tensor.shape)}; "
                "correct one of them"
            )
        dtype = dtype_of(spec, where)
        if spec.requires_grad is False:
            tensor.requires_grad_(False)
        if dtype is not None and dtype is not tensor.dtype:
            self._fills.convert(tensor, dtype)
        if spec.stride is not None:
            self._fills.run([tensor])
            tensor.data = restrided(tensor.data, spec, where)
        if spec.value is not None:
            value = value_for(tensor, spec, where, self._device)
            self._fills.run([tensor])
            with torch.no_grad():
                tensor.copy_(value)
            if tensor.is_meta:
                self.values.append((tensor, value))

    def make_usual(self, module: nn.Module, implementation: Implementation) -> None:
        """Convert tensors without a stated dtype to float32, whatever torch's default dtype is."""
        for name, tensor, _ in all_tensors(module):
            spec = implementation.tensors.get(name)
            usual = usual_dtype(tensor.dtype)
            if (spec is None or spec.dtype is None) and tensor.dtype is not usual:
                self._fills.convert(tensor, usual)

    def bring(self, module: nn.Module, implementation: Implementation, where: Place) -> None:
        """Move the tensors of a module to the device, if its handler made them elsewhere.

        Some functions, such as ``torch.from_numpy``, ignore the default device.

        Raises:
            PluginError: the module shares a tensor with a module of another implementation.
        """
        listed = list((all_tensors if implementation.children is None else own_tensors)(module))
        brought = {id(tensor): tensor for _, tensor, _ in listed if tensor.device != self._device}
        if brought:
            with refusals(where):
                brought = {key: self._placed(tensor) for key, tensor in brought.items()}
        for name, tensor, _ in listed:
            mine = brought.get(id(tensor), tensor)
            if mine is not tensor:
                *way, last = name.split(".")
                replace(descend(module, way), last, mine)
            owner = self._owners.setdefault(id(mine), where)
            if owner is not where:
                raise PluginError(
                    f"{where}: its handler returned a module whose {name!r} is a tensor of "
                    f"{owner}; it must make a new one each time that it is asked"
                )

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device."""
        if tensor.device == self._device:
            return tensor
        is_parameter = isinstance(tensor, nn.Parameter)
        if self._device.type == "meta":
            self._fills.forget([tensor])
        self._fills.run([tensor])
        placed = tensor.detach().to(self._device)
        if placed.is_meta and not is_parameter:
            self.values.append((placed, tensor))
        return nn.Parameter(placed, tensor.requires_grad) if is_parameter else placed

    def tie(self, ir: Ir, modules: Mapping[str, nn.Module]) -> None:
        """Make tied tensors one.

        Raises:
            BuildError: a key names no other tensor of the same kind and shape.
        """
        for name, implementation in ir.items():
            for tensor, spec in implementation.tensors.items():
                if spec.tied is not None:
                    where = Place("implementation", name).at("tensor", tensor)
                    owner, rest = owner_of(ir, spec.tied)
                    first = modules.get(owner)
                    target = None if first is None else find(first, rest)
                    *way, last = tensor.split(".")
                    holder = descend(modules[name], way)
                    itself = (owner, rest) == (name, tensor)
                    if itself or not isinstance(target, torch.Tensor) or holder is None:
                        raise BuildError(
                            f"{where}: it is tied to {spec.tied!r}, which is no other tensor of "
                            "the model; correct the key"
                        )
                    members = (
                        holder._parameters if isinstance(target, nn.Parameter) else holder._buffers
                    )
                    mine = members.get(last)
                    if mine is None or mine.shape != target.shape:
                        raise BuildError(
                            f"{where}: it is of another kind or shape than {spec.tied!r}, to which "
                            "it is tied; correct one of them"
                        )
                    self._fills.forget([mine])
                    # setattr, because some modules also keep their parameters in a list and update
                    # it there.
                    setattr(holder, last, target)


def _register(owner: nn.Module, name: str, tensor: torch.Tensor, spec: TensorSpec) -> None:
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(name, tensor)
    else:
        persistent = spec.kind == "buffer" and spec.persistent is not False
        owner.register_buffer(name, tensor, persistent=persistent)
        if spec.kind == "constant" and isinstance(owner, Holder):
            owner._uncast |= {name}
        if spec.narrows is False and isinstance(owner, Holder):
            owner._unnarrowed = {**owner._unnarrowed, name: tensor.dtype}


def value_for(
    tensor: torch.Tensor, spec: TensorSpec, place: Place, device: torch.device
) -> torch.Tensor:
    """Return the value that an IR holds for a tensor; it has the tensor's shape if none is said."""
    shape = tuple(tensor.shape) if spec.shape is None else spec.shape
    plain = TensorSpec(kind="buffer", shape=shape, dtype=spec.dtype, value=spec.value)
    return from_spec(plain, place, device)
