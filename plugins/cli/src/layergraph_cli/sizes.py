"""How large the layers of a model are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from layergraph.errors import LayergraphError, first_line
from layergraph.files.limits import Limits
from layergraph.files.opening import Opened
from layergraph.files.values import MAX_NAME
from layergraph.ir import Ir


@dataclass(frozen=True, slots=True)
class Size:
    """Of some tensors, each counted once.

    Attributes:
        tensors: how many there are.
        numbers: how many numbers are in them.
        bytes: how many bytes these take.
        buffers: how many of the numbers are in buffers, the others are in parameters.
    """

    tensors: int = 0
    numbers: int = 0
    bytes: int = 0
    buffers: int = 0

    @property
    def parameters(self) -> int:
        """The count of numbers in parameters."""
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
    """The sizes of a model's layers: of the parameters and buffers that state dicts have.

    Attributes:
        own: of what belongs to each implementation itself, by name; empty if they are unknown.
        source: where they are from: ``file``, ``built`` or ``unknown``.
        reason: why they are unknown; with sizes from the file, why buffers are.
        knows_buffers: whether it is known which tensors are buffers.
    """

    own: Mapping[str, Size]
    source: str
    reason: str = ""
    knows_buffers: bool = True

    @property
    def total(self) -> Size:
        """That of the model."""
        return sum(self.own.values(), Size())

    @property
    def are_known(self) -> bool:
        """Whether there are any."""
        return self.source != "unknown"


def sizes_of(model: Opened, limits: Limits) -> Sizes:
    """The sizes of a model's layers.

    Building the model, without memory for its tensors, tells which of them are buffers, and their
    sizes where the file holds no weights. It needs PyTorch and the plugins.
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
    """The tensors that state dicts of the model have by name; each is there once.

    Raises:
        LayergraphError: the model cannot be built.
    """
    from torch import nn

    from layergraph.files.build import build_skeleton

    seen: set[int] = set()
    found = {}
    for key, tensor, persists in build_skeleton(model, limits).listed:
        if persists and id(tensor) not in seen:
            seen.add(id(tensor))
            count = tensor.numel()
            buffers = 0 if isinstance(tensor, nn.Parameter) else count
            found[key] = Size(1, count, tensor.nbytes, buffers)
    return found


def by_owner(ir: Ir, tensors: Iterable[tuple[str, Size]]) -> dict[str, Size]:
    """The sizes of tensors by the implementation that they belong to."""
    most_dots = {
        name: max((child.count(".") for child in each.children or ()), default=0)
        for name, each in ir.items()
    }
    own = dict.fromkeys(ir, Size())
    for key, size in tensors:
        # Keys of weights may be of any length, but paths to layers are not.
        parts = key.split(".") if len(key) <= _LONGEST else [key]
        name, start = ir.root, 0
        while (step := _step(ir, name, parts, start, most_dots[name])) is not None:
            name, start = step
        own[name] += size
    return own


_LONGEST = 2 * MAX_NAME
# More in one name than anybody writes, and few enough to try all.
_MOST_DOTS = 100


def _step(
    ir: Ir, name: str, parts: list[str], start: int, most_dots: int
) -> tuple[str, int] | None:
    """The child on the way to a tensor, and where the rest of the way begins; None at its end."""
    children = ir[name].children or {}
    # The last part is the tensor. The longest name first: it may begin as another's does.
    for end in range(min(start + min(most_dots, _MOST_DOTS) + 1, len(parts) - 1), start, -1):
        target = children.get(".".join(parts[start:end]))
        if target is not None:
            return target, end
    return None
