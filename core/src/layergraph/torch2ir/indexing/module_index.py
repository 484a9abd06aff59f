"""The index of a model's modules, with the handlers' answer for each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from layergraph.ir import Implementation
from layergraph.tensors.kinds import TensorKinds
from layergraph.tensors.state import all_tensors, own_tensors
from layergraph.torch2ir.indexing.reach import Reach
from layergraph.undo import undoing

T = TypeVar("T")

Ask = Callable[[nn.Module, str], Implementation | None]


@dataclass(slots=True, eq=False)
class ModuleInfo:
    """A module with its place in the model.

    Attributes:
        module: the module.
        path: the first path to it; empty for the model.
        answer: the answer of the handlers; None for a composite.
        is_leaf: whether a handler describes the module with everything inside it.
        inside: of a leaf, itself and all modules inside it; of a composite, itself alone.
        children: its child modules by name, in order; empty for a leaf.
        parents: the modules that have it as a child.
        kept_modes: see :class:`layergraph.Implementation`.
        kept_dtypes: the names of its buffers that do not follow a cast to a narrower dtype.
        as_found: its state before the model runs.
        as_left: its state after its last call; before the first call of a run, the state that an
            earlier run left, or ``as_found``.
        left_before: the states that earlier runs left.
        hidden: of a leaf, the tensors that carry its state from one call to the next, by name; as
            of its last call.
    """

    module: nn.Module
    path: str
    _ask: Ask
    answer: Implementation | None = field(init=False)
    is_leaf: bool = field(init=False)
    inside: tuple[nn.Module, ...] = field(init=False)
    children: dict[str, ModuleInfo] = field(default_factory=dict)
    parents: list[ModuleInfo] = field(default_factory=list)
    kept_modes: dict[str, bool | None] = field(default_factory=dict)
    kept_dtypes: Collection[str] = ()
    as_found: tuple[dict[str, Any], ...] = ()
    as_left: tuple[dict[str, Any], ...] = ()
    left_before: list[tuple[dict[str, Any], ...]] = field(default_factory=list)
    hidden: dict[str, torch.Tensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answer = self._ask(self.module, self.path)
        self.is_leaf = self.answer is not None and self.answer.children is None
        # Most leaves have no modules inside.
        has_modules = self.is_leaf and self.module._modules
        self.inside = tuple(self.module.modules()) if has_modules else (self.module,)

    def is_still_answered(self) -> bool:
        """Return whether the handler gives the same answer as before."""
        now, before = self._ask(self.module, self.path), self.answer
        if now is None or before is None:
            return now is before
        return (now.type, repr(now.data)) == (before.type, repr(before.data))

    def tensors(self) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Yield the parameters and buffers, of a leaf also those inside: name, tensor, persists."""
        return all_tensors(self.module) if self.is_leaf else own_tensors(self.module)

    def key(self, name: str) -> str:
        """Return the key of a tensor of the module in the state dict of the model."""
        return f"{self.path}.{name}" if self.path else name

    def is_within(self, other: ModuleInfo) -> bool:
        """Return whether the module is the other one or one of its descendants."""
        if self is other or not other.path or self.path.startswith(f"{other.path}."):
            return True
        seen = {id(self)}
        stack = [self]
        while stack:
            for parent in stack.pop().parents:
                if parent is other:
                    return True
                if id(parent) not in seen:
                    seen.add(id(parent))
                    stack.append(parent)
        return False


class ModuleIndex:
    """Each module of a model once, outer modules first, in the order of the state dict.

    Args:
        model: the model.
        ask: returns the handlers' answer for a module and its path.
        kinds: the kinds of tensors that the model may hold.

    Attributes:
        kinds: the kinds of tensors that the model may hold.
    """

    def __init__(self, model: nn.Module, ask: Ask, kinds: TensorKinds | None = None) -> None:
        self.kinds = TensorKinds() if kinds is None else kinds
        self._found: dict[int, ModuleInfo] = {}
        self._by_path: dict[str, ModuleInfo] = {}
        self._found_once: dict[object, list[Any]] = {}
        self.depth = 0
        self.root = self._add(model, "", ask, 0)
        stack = [(self.root, _children(self.root))]
        while stack:
            parent, children = stack[-1]
            name, child = next(children, ("", None))
            if child is None:
                stack.pop()
                continue
            known = self._found.get(id(child))
            if known is None:
                path = f"{parent.path}.{name}" if parent.path else name
                known = self._add(child, path, ask, len(stack))
                stack.append((known, _children(known)))
            parent.children[name] = known
            known.parents.append(parent)

    def _add(self, module: nn.Module, path: str, ask: Ask, depth: int) -> ModuleInfo:
        module_info = ModuleInfo(module, path, ask)
        self._found[id(module)] = module_info
        self._by_path[path] = module_info
        self.depth = max(self.depth, depth)
        return module_info

    def __iter__(self) -> Iterator[ModuleInfo]:
        return iter(self._found.values())

    @functools.cached_property
    def code_globals(self) -> list[dict[str, Any]]:
        """Return the globals of the model's own code, where patches affect no other code."""
        found: dict[int, dict[str, Any]] = {}
        for cls in {type(each.module) for each in self if not each.is_leaf}:
            for base in cls.__mro__:
                forward = vars(base).get("forward")
                scope = getattr(inspect.unwrap(forward), "__globals__", None) if forward else None
                if scope is not None and not scope.get("__name__", "").startswith("torch."):
                    found[id(scope)] = scope
        return list(found.values())

    @property
    def code_files(self) -> set[str]:
        """Return the files of the model's own code."""
        return {str(scope.get("__file__")) for scope in self.code_globals}

    @functools.cached_property
    def reach(self) -> Reach:
        """The objects that the code run so far reaches."""
        return Reach([each.module for each in self])

    def once(self, find: Callable[[ModuleIndex], Iterable[T]]) -> list[T]:
        """Return the cached result of a search of the model; runs do not change the result."""
        if find not in self._found_once:
            self._found_once[find] = list(find(self))
        return self._found_once[find]

    def trained_keys(self) -> set[str]:
        """Return the keys of the tensors that need gradients."""
        return {
            each.key(name)
            for each in self
            for name, tensor, _ in each.tensors()
            if tensor.requires_grad
        }

    def get(self, module: nn.Module) -> ModuleInfo | None:
        """Return the info of a module; None for one that is not registered in the model.

        Modules inside a leaf are not registered in this sense.
        """
        return self._found.get(id(module))

    def at(self, path: str) -> ModuleInfo:
        """Return the module at its first path, or the leaf that contains the path."""
        while path not in self._by_path:
            path = path.rpartition(".")[0]
        return self._by_path[path]


@contextmanager
def other_mode(module_index: ModuleIndex) -> Iterator[None]:
    """Flip ``training`` of every module inside a ``with`` block."""
    modules = [vars(module) for each in module_index for module in each.inside]
    before = [(members, members["training"]) for members in modules if "training" in members]

    def put_back() -> None:
        for members, training in before:
            members["training"] = training

    with undoing(put_back):
        for members, training in before:
            members["training"] = not training
        yield


def _children(module_info: ModuleInfo) -> Iterator[tuple[str, nn.Module | None]]:
    if module_info.is_leaf:
        return iter(())
    return iter([item for item in module_info.module._modules.items() if item[1] is not None])
