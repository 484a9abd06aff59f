"""Compute the sizes of the layers of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from layergraph.errors import LayergraphError, first_line
from layergraph.ir import Ir
from layergraph_files.limits import Limits
from layergraph_files.reader import Opened
from layergraph_files.values import MAX_NAME


@dataclass(frozen=True, slots=True)
class Size:
    """The size of some tensors, each counted once.

    Attributes:
        tensors: the number of tensors.
        numbers: the number of elements in all of them.
        bytes: the bytes of these elements.
        buffers: the number of elements in buffers; the rest are in parameters.
    """

    tensors: int = 0
    numbers: int = 0
    bytes: int = 0
    buffers: int = 0

    @property
    def parameters(self) -> int:
        """Return the number of elements in parameters."""
        return self.numbers - self.buffers

    def __add__(self, other: Size) -> Size:
        return Size(
            self.tensors + other.tensors,
            self.numbers + other.numbers,
            self.bytes + other.bytes,
            self.buffers + other.buffers,
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a model's layers: of parameters, and of buffers in the state dict.

    Attributes:
        own: the size of each implementation without its children, by name; empty if unknown.
        source: the source of the sizes: ``file``, ``built`` or ``unknown``.
        reason: the reason why the sizes, or the split into parameters and buffers, are unknown.
        knows_buffers: True if the split into parameters and buffers is known.
    """

    own: Mapping[str, Size]
    source: str
    reason: str = ""
    knows_buffers: bool = True

    @property
    def total(self) -> Size:
        """Return the size of the model."""
        return sum(self.own.values(), Size())

    @property
    def are_known(self) -> bool:
        """Return whether the sizes are known."""
        return self.source != "unknown"


def sizes_of(model: Opened, limits: Limits) -> Sizes:
    """Return the sizes of a model's layers.

    The function builds the model on the meta device to find out which tensors are buffers, and to
    get the sizes if the file has no weights. It needs torch and the plugins.
    """
    try:
        built = _built(model, limits)
    except LayergraphError as error:
        reason = first_line(error)
        if not model.weights:
            return Sizes({}, "unknown", reason)
        return Sizes(by_owner(model.ir, _stored(model, frozenset())), "file", reason, False)
    if not model.weights:
        return Sizes(by_owner(model.ir, built.items()), "built")
    buffers = frozenset(name for name, size in built.items() if size.buffers)
    return Sizes(by_owner(model.ir, _stored(model, buffers)), "file")


def _stored(model: Opened, buffers: Collection[str]) -> Iterator[tuple[str, Size]]:
    for name, (_, stored) in model.weights.items():
        own = stored.numbers if name in buffers else 0
        yield name, Size(1, stored.numbers, stored.length, own)


def _built(model: Opened, limits: Limits) -> dict[str, Size]:
    """Return the sizes of the tensors in a state dict of the model, each under one name.

    Raises:
        LayergraphError: the model cannot be built.
    """
    from torch import nn

    from layergraph_files.build import build_meta_model

    seen: set[int] = set()
    found = {}
    built = build_meta_model(model, limits)
    for key, tensor, persists in built.listed:
        if persists and id(tensor) not in seen:
            seen.add(id(tensor))
            is_parameter = isinstance(tensor, nn.Parameter)
            # A file holds a quantized or sparse tensor as its parts.
            for name, part in built.kinds.expanded({key: tensor}).items():
                count = part.numel()
                found[name] = Size(1, count, part.nbytes, 0 if is_parameter else count)
    return found


def by_owner(ir: Ir, tensors: Iterable[tuple[str, Size]]) -> dict[str, Size]:
    """Return the size of each implementation without its children."""
    most_dots = {
        name: max((child.count(".") for child in each.children or ()), default=0)
        for name, each in ir.items()
    }
    own = dict.fromkeys(ir, Size())
    for key, size in tensors:
        # A key may have any length; the path to a layer has a limit.
        parts = key.split(".") if len(key) <= _LONGEST else [key]
        name, start = ir.root, 0
        while (step := _step(ir, name, parts, start, most_dots[name])) is not None:
            name, start = step
        own[name] += size
    return own


_LONGEST = 2 * MAX_NAME
# The most dots to try in the name of a child, which bounds the time. Real names have fewer.
_MOST_DOTS = 100


def _step(
    ir: Ir, name: str, parts: list[str], start: int, most_dots: int
) -> tuple[str, int] | None:
    """Return the next child on the path to a tensor, and the index after it; None at the end."""
    children = ir[name].children or {}
    # The last part is the tensor. Try longer names first, because one name may start with another.
    for end in range(min(start + min(most_dots, _MOST_DOTS) + 1, len(parts) - 1), start, -1):
        target = children.get(".".join(parts[start:end]))
        if target is not None:
            return target, end
    return None
