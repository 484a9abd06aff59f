"""Hooks that keep autograd from saving tensors, because capture computes no gradients.

With gradients on, autograd saves nearly every result. We cannot switch gradients off, because the
model may read ``requires_grad``. So torch's hooks on saved tensors make autograd save an id
instead. If the model itself computes gradients, it runs again without these hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd import graph
from torch.nn.functional import scaled_dot_product_attention

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.undo import undoing
from layergraph_capture.arguments import tensors_in

_Cell = list[torch.Tensor]
_Hooks = tuple[Callable[..., Any], Callable[..., Any]]


GRAD = "torch.autograd.grad"


@dataclass
class SavedTensors:
    """The treatment of the tensors that autograd saves, for all runs of a capture.

    Attributes:
        are_kept: whether autograd saves tensors as usual.
        are_needed: whether the model has computed gradients so far.
    """

    are_kept: bool = False
    are_needed: bool = False

    def need(self) -> None:
        """Record that the model computes gradients.

        Raises:
            CaptureError: autograd has saved nothing for this.
        """
        self.are_needed = True
        if not self.are_kept:
            _missing(None)

    def lean(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with the same results that needs no extra memory for gradients.

        Torch's attention materializes all weights if its mask requires gradients.
        """
        is_attention = function is scaled_dot_product_attention
        return _attention if is_attention and not self.are_kept else function

    def of_run(self) -> AbstractContextManager[None]:
        """Return the context of a run."""
        return nullcontext() if self.are_kept else nothing_saved()

    def meanwhile(self) -> AbstractContextManager[None]:
        """Return the context of foreign code, which may compute gradients of its own values."""
        return nullcontext() if self.are_kept else saved_meanwhile()


@contextmanager
def nothing_saved() -> Iterator[None]:
    """Return a context in which autograd saves no tensors.

    Raises:
        CaptureError: code inside computes gradients.
    """
    # C code, one object for each context. Torch calls it for each tensor that an operation saves.
    with _hooks(partial(id), _missing):
        yield


@contextmanager
def saved_meanwhile() -> Iterator[None]:
    """Return a context in which autograd saves tensors until the context ends.

    Foreign code may compute gradients inside it.
    """
    cells: list[_Cell] = []

    def pack(tensor: torch.Tensor) -> _Cell:
        cells.append([tensor])
        return cells[-1]

    try:
        with _hooks(pack, _of_cell):
            yield
    finally:
        for each in cells:
            each.clear()


def _missing(_: object) -> torch.Tensor:
    raise CaptureError(
        "it computes gradients of values that the model computed before, which a graph cannot "
        "hold; compute them outside of the model"
    )


def _of_cell(cell: _Cell) -> torch.Tensor:
    return cell[0] if cell else _missing(cell)


@contextmanager
def _hooks(pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> Any:
    if not _STACK._saved_tensors_hooks_is_enabled():
        yield
        return
    before = _top()

    def put_back() -> None:
        while (top := _top()) is not None and top != before:
            _pop()

    with undoing(put_back):
        _push(pack, unpack)
        yield


_STACK: Any = torch._C._autograd
# Our active hooks. Torch 2.6 has no function that returns the topmost hooks.
_pushed: list[_Hooks] = []


def _push(*hooks: Callable[..., Any]) -> None:
    _STACK._push_saved_tensors_default_hooks(*hooks)
    _pushed.append((hooks[0], hooks[1]))


def _pop() -> None:
    _STACK._pop_saved_tensors_default_hooks()
    if _pushed:
        _pushed.pop()


def _top() -> _Hooks | None:
    ask = getattr(_STACK, "_top_saved_tensors_default_hooks", None)
    if ask is None:
        return _pushed[-1] if _pushed else None
    top: _Hooks | None = ask(False)
    return top


def transforms_without_hooks() -> Iterator[Patch]:
    """Yield the patch that removes our hooks inside torch.func, which does not allow such hooks."""
    disabled = graph.disable_saved_tensors_hooks

    @contextmanager
    def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
        ours: list[_Hooks] = []
        while (top := _top()) is not None and top[1] in (_missing, _of_cell):
            ours.append(top)
            _pop()
        try:
            with disabled(error_message):
                yield
        finally:
            for each in reversed(ours):
                _push(*each)

    yield graph, disabled.__name__, disable_saved_tensors_hooks


class _Attention(torch.autograd.Function):
    """Attention that runs the kernels for inputs without gradients."""

    @staticmethod
    def forward(_: Any, args: Any, kwargs: Any, *__: torch.Tensor) -> torch.Tensor:
        named = {key: _detached(each) for key, each in kwargs.items()}
        result = scaled_dot_product_attention(*map(_detached, args), **named)
        # Autograd refuses in-place changes of a view made inside a custom Function.
        return result.clone() if result._is_view() else result

    @staticmethod
    def backward(_: Any, *__: Any) -> Any:
        return _missing(None)


def _attention(*args: Any, **kwargs: Any) -> Any:
    mask = args[_MASK] if len(args) > _MASK else kwargs.get("attn_mask")
    if mask is None or not (torch.is_grad_enabled() and mask.requires_grad):
        return scaled_dot_product_attention(*args, **kwargs)
    return _Attention.apply(args, kwargs, *tensors_in((args, kwargs)))


# The index of the mask argument.
_MASK = 3


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
