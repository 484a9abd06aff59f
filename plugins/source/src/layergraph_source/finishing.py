"""Statements at the end of the root's constructor: sharing, ties, dtypes, frozen weights, modes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from layergraph.errors import Place
from layergraph.ir import Ir, TensorSpec
from layergraph.ir.submodules import post_order, pre_order
from layergraph.ir2torch.paths import descend, find
from layergraph.ir2torch.submodules import owner_of
from layergraph.ir2torch.tensor_builder import value_for
from layergraph.tensors.state import dtype_of
from layergraph_source.context import Context
from layergraph_source.literals import quoted
from layergraph_source.paths import is_attribute, reading
from layergraph_source.tree import Tree


class Finishing:
    """Writes the statements that change the members of a model after their construction.

    Args:
        ir: the IR.
        tree: the built modules.
        context: the names of the module.
        root: the expression of the root.
    """

    def __init__(self, ir: Ir, tree: Tree, context: Context, root: str) -> None:
        self._ir = ir
        self._tree = tree
        self._context = context
        self._root = root

    def lines(self) -> list[str]:
        """Return the statements."""
        return [
            *self._shared(),
            *self._tensors(),
            *self._ties(),
            *self._dtype(),
            *self._frozen(),
            *self._modes(),
        ]

    def _path(self, name: str, rest: str = "") -> str:
        path = ".".join(part for part in (self._tree.path(name), rest) if part)
        return reading(self._root, self._tree.model, path)

    def _shared(self) -> Iterator[str]:
        for parent, child, target in self._tree.shared:
            path = ".".join(part for part in (self._tree.path(parent), child) if part)
            place = reading(self._root, self._tree.model, path)
            yield f"{place} = {self._path(target)}"

    def _specs(self) -> Iterator[tuple[str, str, TensorSpec]]:
        for name, _ in pre_order(self._ir):
            for tensor, spec in self._ir[name].tensors.items():
                yield name, tensor, spec

    def _tensors(self) -> Iterator[str]:
        for name, tensor, spec in self._specs():
            if spec.tied is not None and spec.value is None:
                continue
            implementation = self._ir[name]
            module = self._tree.modules[name]
            is_own = implementation.children is not None and "." not in tensor
            place = Place("implementation", name).at("tensor", tensor)
            made = find(module, tensor)
            if not isinstance(made, torch.Tensor):
                continue
            path = self._path(name, tensor)
            is_parameter = isinstance(made, nn.Parameter)
            if not is_own:
                yield from self._kind(name, tensor, spec, made)
                yield from self._own_dtype(name, spec, made, path, place)
                if spec.value is not None:
                    value = value_for(made, spec, place, self._tree.device).detach()
                    text = self._context.tensor(value, place)
                    yield f"{path}{'.data' if is_parameter else ''} = {text}"
            if spec.stride is not None:
                strided = self._context.helper("_strided")
                yield f"{path}.data = {strided}({path}, {self._context.value(spec.stride)})"

    def _own_dtype(
        self, name: str, spec: TensorSpec, made: torch.Tensor, path: str, place: Place
    ) -> Iterator[str]:
        dtype = dtype_of(spec, place)
        is_cast = dtype is None or self._tree.uniform is dtype or spec.value is not None
        if not is_cast and self._tree.dtype(name) is not dtype:
            yield f"{path}.data = {path}.data.to({self._context.value(made.dtype)})"

    def _kind(self, name: str, tensor: str, spec: TensorSpec, made: torch.Tensor) -> Iterator[str]:
        """Yield a statement that registers a tensor which the constructor does not make."""
        if spec.kind is None or self._constructor_makes(name, tensor):
            return
        *way, last = tensor.split(".")
        owner = self._path(name, ".".join(way))
        shape = self._context.value(tuple(made.shape))
        dtype = self._context.value(made.dtype)
        zeros = f"{self._context.torch}.zeros({shape}, dtype={dtype})"
        if spec.kind == "parameter":
            parameter = f"{self._context.nn}.Parameter({zeros})"
            yield f"{owner}.register_parameter({quoted(last)}, {parameter})"
        else:
            persistent = spec.kind == "buffer" and spec.persistent is not False
            yield f"{owner}.register_buffer({quoted(last)}, {zeros}, persistent={persistent})"
        if not is_attribute(last):
            self._context.problems.add(
                Place("implementation", name).at("tensor", tensor),
                "it is no attribute of the layer",
                "rename it",
            )

    def _constructor_makes(self, name: str, tensor: str) -> bool:
        module = self._tree.plain(name)
        *way, last = tensor.split(".")
        owner = None if module is None else descend(module, way)
        return isinstance(getattr(owner, last, None), torch.Tensor)

    def _ties(self) -> Iterator[str]:
        for name, tensor, spec in self._specs():
            if spec.tied is not None:
                owner, rest = owner_of(self._ir, spec.tied)
                yield f"{self._path(name, tensor)} = {self._path(owner, rest)}"

    def _dtype(self) -> Iterator[str]:
        if self._tree.uniform is not None:
            yield f"{self._root}.to({self._context.value(self._tree.uniform)})"

    def _frozen(self) -> Iterator[str]:
        """Yield a statement for each largest part of the model whose parameters are all frozen."""
        states: dict[str, set[bool]] = {}
        for name in post_order(self._ir):
            module = self._tree.modules[name]
            own = {each.requires_grad for each in module.parameters(recurse=False)}
            if self._ir[name].children is None:
                own = {each.requires_grad for each in module.parameters()}
            inner = (states[child] for child in (self._ir[name].children or {}).values())
            states[name] = own.union(*inner)
        done: set[str] = set()
        for name, parent in pre_order(self._ir):
            if parent in done or states[name] == {False}:
                if parent not in done:
                    yield f"{self._path(name)}.requires_grad_(False)"
                done.add(name)
                continue
            module = self._tree.modules[name]
            is_leaf = self._ir[name].children is None
            for key, each in module.named_parameters(recurse=is_leaf):
                if not each.requires_grad:
                    yield f"{self._path(name, key)}.requires_grad_(False)"

    def _modes(self) -> Iterator[str]:
        training = {name: self._tree.modules[name].training for name in self._tree.modules}
        is_on = training[self._ir.root]
        if not is_on:
            yield f"{self._root}.eval()"
        kept = {
            ".".join(part for part in (self._tree.path(each.name), path) if part)
            for each in self._ir.values()
            if each.kept_modes and each.name in self._tree
            for path in each.kept_modes
        }
        for name, _ in pre_order(self._ir):
            path = self._tree.path(name)
            is_uncertain = any(path == each or path.startswith(f"{each}.") for each in kept)
            if training[name] == is_on and not (is_uncertain and not is_on):
                continue
            if self._ir[name].children is None:
                yield f"{self._path(name)}.train({training[name]})"
            else:
                yield f"{self._path(name)}.training = {training[name]}"
