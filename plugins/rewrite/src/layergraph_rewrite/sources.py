"""Lazy tensors of an edited IR: each is read or computed once, at its first access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from layergraph.errors import StateError

if TYPE_CHECKING:
    import torch


class Source:
    """The source of a tensor.

    Args:
        compute: a function that returns the tensor. It runs at the first access.
        keeps: whether to keep the tensor; False if ``compute`` only looks it up.
    """

    __slots__ = ("_compute", "_keeps", "_tensor")

    def __init__(self, compute: Callable[[], torch.Tensor], *, keeps: bool = True) -> None:
        self._compute = compute
        self._keeps = keeps
        self._tensor: torch.Tensor | None = None

    @classmethod
    def at(cls, state: Mapping[str, torch.Tensor], key: str) -> Source:
        """Return the source of a tensor of a state dict, which looks it up at each access."""
        return cls(lambda: state[key], keeps=False)

    def read(self) -> torch.Tensor:
        """Return the tensor."""
        if self._tensor is not None:
            return self._tensor
        tensor = self._compute()
        if self._keeps:
            self._tensor = tensor
        return tensor


class Tensors(Mapping[str, "torch.Tensor"]):
    """The tensors of a state dict, or of one layer, by name. Each is read at its first access.

    :func:`layergraph.to_torch` and :func:`layergraph.save` take it as a state dict. Tensors that no
    edit changed are those of the original state dict.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
        >>> edit.rename("0", "head")
        >>> list(edit.state)
        ['head.weight', 'head.bias']
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def __getitem__(self, key: str) -> torch.Tensor:
        try:
            return self._sources[key].read()
        except KeyError:
            if key in self._sources:
                raise StateError(
                    f"the state dict of the edit has no tensor for {key!r} any more; keep it as it "
                    "was while you use what the edit made"
                ) from None
            raise

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, key: object) -> bool:
        return key in self._sources

    def __repr__(self) -> str:
        return f"Tensors({', '.join(self._sources)})"
