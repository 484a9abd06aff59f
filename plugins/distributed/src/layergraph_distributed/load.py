"""Loading a model on several processes: each reads the parts of the tensors that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from layergraph.errors import BuildError, StateError
from layergraph.ir2torch.converter import device_of
from layergraph.ir2torch.load import fitting, keep_alike, names_of
from layergraph.ir2torch.meta_model import MetaModel
from layergraph.ir2torch.paths import descend, find
from layergraph.tensors.memory import PLAIN_CLASSES, numbers_of, same_bits
from layergraph.tensors.state import all_tensors, replace
from layergraph_distributed.parts import local_of, placed, region_of, take
from layergraph_distributed.plans import Plan, apply
from layergraph_files.build import undisguised
from layergraph_files.container import Stored
from layergraph_files.reader import Part
from layergraph_files.regions import region_shape, spans

Device: TypeAlias = torch.device | str | int | None


def fill_parts(
    meta_model: MetaModel,
    stored: Mapping[str, tuple[Part, Stored]],
    device: Device,
    dtype: torch.dtype | None,
    mesh: DeviceMesh | None,
    plan: Plan | None,
) -> nn.Module:
    """Distribute a model on the meta device, and read the parts of its tensors from open files.

    No process waits for another one, unless the plan itself makes a process wait.

    Args:
        meta_model: the model.
        stored: for each key, the file and the place of the tensor in it.
        device: the device of the parts; None: that of the mesh, or torch's default.
        dtype: the dtype of the floating-point parameters and buffers, except constants; None:
            their dtypes in the IR.
        mesh: the devices of the processes, for the plan.
        plan: the plan; None: that of the IR.

    Returns:
        The model.

    Raises:
        StateError: the files do not fit the model, or the plan separates tied tensors.
        BuildError: the plan does not fit the model, or neither the files nor the IR have a value
            for a tensor.
    """
    listed, model = meta_model.listed, meta_model.model
    fitting(listed, {name: _like(name, each, meta_model) for name, (_, each) in stored.items()})
    if dtype is not None:
        meta_model.cast(dtype)
    owners = {key: meta_model.place(key) for key, _, _ in listed}
    apply(meta_model.ir, model, mesh, plan)
    kind = mesh.device_type if device is None and mesh is not None else device
    filling = _Filling(meta_model, stored, device_of(kind), owners)
    tensors = {key: tensor for key, tensor, _ in listed}
    for names in names_of(tensors).values():
        filling.fill(names)
    left = [key for key, tensor, _ in all_tensors(model) if tensor.is_meta]
    if left:
        raise BuildError(
            f"the plan added {left[0]!r}, and no file holds its value; set the value in the plan"
        )
    there = [(key, find(model, key), persists) for key, _, persists in listed]
    keep_alike(model, [each for each in there if isinstance(each[1], torch.Tensor)], [])
    return model


def _like(name: str, stored: Stored, meta_model: MetaModel) -> torch.Tensor:
    """Return a tensor on the meta device with the dtype and shape of one in a file."""
    tensor = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype), device="meta")
    wanted = find(meta_model.model, name)
    return undisguised(tensor, wanted.dtype) if isinstance(wanted, torch.Tensor) else tensor


class _Filling:
    """Reads the tensors of a distributed model one by one.

    Args:
        meta_model: the model, already distributed.
        stored: for each key, the file and the place of the tensor in it.
        device: the device of the parts.
        owners: for each key, the module that had the tensor before the plan, and its name there.
    """

    def __init__(
        self,
        meta_model: MetaModel,
        stored: Mapping[str, tuple[Part, Stored]],
        device: torch.device,
        owners: Mapping[str, tuple[nn.Module, str]],
    ) -> None:
        self._model = meta_model.model
        self._planned = {key: tensor for key, tensor, _ in meta_model.listed}
        self._values = {id(tensor): value for tensor, value in meta_model.values}
        self._stored = stored
        self._device = device
        self._owners = owners
        self._there = set(self._model.modules())
        self._is_fsdp = any(isinstance(each, FSDPModule) for each in self._there)

    def fill(self, names: list[str]) -> None:
        """Read a tensor, which may have several names, and put it into the model."""
        now = self._planned_now(names)
        if not now:
            return
        key, tensor = next(iter(now.items()))
        made = torch.empty_like(tensor, device=self._device, requires_grad=False)
        local = local_of(made)
        region = region_of(key, made)
        # If the files hold several of the names, use the last one, as a plain load does.
        given = [name for name in names if name in self._stored]
        if region is not None and given:
            self._read(given[-1], made, local)
            for name in given[:-1]:
                self._compare(name, given[-1], made, local)
        elif region is not None:
            value = self._values.get(id(self._planned[names[0]]))
            if value is None:
                message = f"{names[0]!r} is in no file, and the IR has no value for it"
                raise BuildError(f"{message}; add the value to the IR or to a file")
            local.copy_(take(value, region))
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=tensor.requires_grad)
        for name in now:
            replace(*self._owners[name], made)

    def _planned_now(self, names: list[str]) -> dict[str, torch.Tensor]:
        """Return the tensors under the names of a tensor after the plan, and check their class."""
        now: dict[str, torch.Tensor] = {}
        for name in names:
            tensor = self._tensor_now(name)
            if tensor is None:
                continue
            if not isinstance(tensor, DTensor) and type(tensor) not in PLAIN_CLASSES:
                raise BuildError(
                    f"the plan made {name!r} a {type(tensor).__name__}, and we cannot read a part "
                    "for it from a file; let the plan make DTensors"
                )
            now[name] = tensor
        if now:
            self._expect_tied(now)
        return now

    def _tensor_now(self, name: str) -> torch.Tensor | None:
        """Return a tensor of the model after the plan; None if the plan removed its layer."""
        owner, last = self._owners[name]
        *way, _ = name.split(".")
        found = descend(self._model, way)
        # A plan may wrap a layer. It may also remove one, as each stage of a pipeline does.
        if found is not None and found is not owner and owner not in set(found.modules()):
            if find(self._model, name) is not None:
                raise BuildError(
                    f"the plan replaced the layer of {name!r} by another one; let it keep layers "
                    "at their paths, and put torch.nn.Identity where it removes a layer"
                )
            return None
        return getattr(owner, last, None) if owner in self._there else None

    def _read(self, name: str, tensor: torch.Tensor, local: torch.Tensor) -> None:
        """Read a part of a tensor.

        Args:
            name: the name in the files.
            tensor: the whole tensor, distributed.
            local: the memory for its part.
        """
        part, stored = self._stored[name]
        dtype: torch.dtype = getattr(torch, stored.dtype)
        region = region_of(name, tensor) or []
        is_bytes = len(stored.shape) > tensor.ndim
        if is_bytes:
            region = [*region, [(0, stored.shape[-1])]]
        elif not torch.can_cast(dtype, tensor.dtype):
            raise StateError(f"{name!r} is of {dtype} where {tensor.dtype} is wanted")
        is_alike = local.device.type == "cpu" and local.is_contiguous() and local.dtype is dtype
        # Besides the model, at most one part of a tensor is in memory.
        read = local if is_alike else torch.empty(region_shape(region), dtype=dtype, device="cpu")
        memory, _held = numbers_of(read)
        part.read_into(stored, memory, spans(stored.shape, region, dtype.itemsize))
        if read is not local:
            local.copy_(undisguised(read, tensor.dtype) if is_bytes else read)

    def _compare(self, name: str, other: str, tensor: torch.Tensor, local: torch.Tensor) -> None:
        """Raise if a tensor has another value under another name."""
        second = torch.empty_like(local)
        self._read(name, tensor, second)
        if not same_bits(second, local):
            raise StateError(
                f"{name!r} and {other!r} are one tensor of the model, but have different values; "
                "give one of them"
            )

    def _expect_tied(self, now: Mapping[str, torch.Tensor]) -> None:
        """Raise if a plan separated tied tensors, so that they cannot be tied again."""
        key, first = next(iter(now.items()))
        for name, tensor in now.items():
            if tensor is not first and (self._is_fsdp or placed(tensor) != placed(first)):
                raise StateError(
                    f"{key!r} and {name!r} are one tensor of the model, but the plan separates "
                    "them; give their layers one style, or shard them in one call of fully_shard"
                )
