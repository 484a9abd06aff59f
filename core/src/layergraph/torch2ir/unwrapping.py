"""Models without their wrappers during a capture, by the hook ``unwrap``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from layergraph.capturing import Example
from layergraph.errors import CaptureError, PluginError
from layergraph.hook_types.wrapping import Unwrapped
from layergraph.ir import Ir
from layergraph.plugins import Hooks
from layergraph.tensors.memory import PLAIN_CLASSES, is_plain
from layergraph.torch2ir.asking import first_answer
from layergraph.torch2ir.indexing.answers import answer_of
from layergraph.torch2ir.indexing.module_refusals import place_of
from layergraph.undo import undoing

_MAX_WRAPPERS = 64
_REGISTERED = ("_parameters", "_buffers")


@dataclass(eq=False)
class PlainModel:
    """A model without its wrappers.

    Attributes:
        model: the model inside the wrappers; without a wrapper, the user's object.
        numbers: the original tensors, by the ``id`` of the meta tensors that replace them in the
            capture.
        annotations: the annotations that describe the wrappers, by the path of the module.
        is_wrapped: whether there was a wrapper.
    """

    model: Any
    numbers: dict[int, torch.Tensor] = field(default_factory=dict)
    annotations: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_wrapped: bool = False

    def annotate(self, ir: Ir) -> None:
        """Add the annotations to the layers of the IR of the model."""
        for path, said in self.annotations.items():
            layer, *inside = ir[ir.root], *filter(None, path.split("."))
            while inside and inside[0] in (layer.children or {}):
                layer = ir[(layer.children or {})[inside.pop(0)]]
            # For a module inside a leaf, the leaf gets the annotation, with the module's path as a
            # suffix.
            suffix = "".join(f".{each}" for each in inside)
            layer.data = layer.data | {f"{name}{suffix}": value for name, value in said.items()}


@contextmanager
def unwrapped(
    hooks: Hooks, model: Any, *, needs_numbers: bool, to_meta: bool = False
) -> Iterator[PlainModel]:
    """Remove the wrappers of a model inside a ``with`` block, as the plugins say.

    Args:
        hooks: the hooks to ask.
        model: the user's object; leaving the block restores it.
        needs_numbers: whether to gather sharded tensors; otherwise they are on meta.
        to_meta: whether to put all other tensors of the model on meta, too.

    Raises:
        PluginError: a plugin failed, or keeps returning wrappers.
    """
    unwrapping = _Unwrapping(hooks, needs_numbers=needs_numbers)
    with undoing(unwrapping.put_back):
        plain = unwrapping.plain(model)
        plain.is_wrapped = plain.model is not model or unwrapping.has_changed
        if to_meta:
            unwrapping.move_to_meta(plain)
        unwrapping.follow_attributes()
        yield plain


def is_on_meta(examples: Sequence[Example]) -> bool:
    """Return whether the tensors of the example calls are on the meta device."""
    try:
        return any(
            type(each) in PLAIN_CLASSES and each.is_meta
            for args, kwargs in examples
            for each in _pytree.tree_leaves((args, kwargs))
        )
    except RecursionError:
        raise CaptureError(
            "an argument contains itself, or is nested too deeply for a graph; give a finite one"
        ) from None


class _Unwrapping:
    """Asks the hook for each module of a model, and changes the modules that have an answer.

    Args:
        hooks: the hooks to ask.
        needs_numbers: whether the capture computes with the tensors of the model.
    """

    def __init__(self, hooks: Hooks, *, needs_numbers: bool) -> None:
        self._hooks = hooks
        self._needs_numbers = needs_numbers
        self._before: dict[int, tuple[nn.Module, type, dict[str, Any]]] = {}
        # By the id of an original; each entry keeps the original alive.
        self._tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._modules: list[nn.Module] = []
        # The classes of untouched modules for which no plugin answered.
        self._plain: set[type] = set()

    @property
    def has_changed(self) -> bool:
        """Return whether a module has been changed."""
        return bool(self._before)

    def put_back(self) -> None:
        """Restore all modules."""
        for module, cls, attributes in self._before.values():
            _set(module, cls, attributes)

    def plain(self, model: Any) -> PlainModel:
        """Return the model without wrappers."""
        said: dict[str, Any] = {}
        found = PlainModel(self._inner(model, "", said))
        if not isinstance(found.model, nn.Module):
            return found
        seen = {id(found.model)}
        # In the order of the state dict, because all ranks must gather tensors in the same order.
        stack = [("", found.model, said)]
        while stack:
            path, module, said = stack.pop()
            self._modules.append(module)
            if said:
                found.annotations[path] = said
            children: list[tuple[str, nn.Module, dict[str, Any]]] = []
            for name, child in list(module._modules.items()):
                if child is None:
                    continue
                said = {}
                inner = self._inner(child, f"{path}.{name}" if path else name, said)
                if inner is not child:
                    self._note(module)
                    vars(module)["_modules"] = {**module._modules, name: inner}
                if id(inner) not in seen:
                    seen.add(id(inner))
                    children.append((f"{path}.{name}" if path else name, inner, said))
            stack += reversed(children)
        return found

    def move_to_meta(self, plain: PlainModel) -> None:
        """Move all tensors of the model to meta, because an operation needs one device."""
        for module in self._modules:
            for registry in _REGISTERED:
                held = vars(module)[registry]
                members = {name: self._on_meta(each, plain.numbers) for name, each in held.items()}
                if any(members[name] is not tensor for name, tensor in held.items()):
                    self._note(module)
                    vars(module)[registry] = members

    def _inner(self, module: Any, path: str, said: dict[str, Any]) -> Any:
        for _ in range(_MAX_WRAPPERS):
            answer = self._ask(module, path)
            if answer is None or self._is_kept(module, path, answer):
                return module
            module = answer.module
            for name, value in answer.annotations.items():
                said.setdefault(name, value)
            if answer.cls is not None or answer.attributes is not None or answer.tensors:
                self._change(module, answer)
        raise PluginError(
            f"a {type(module).__qualname__} is still wrapped after {_MAX_WRAPPERS} answers of the "
            "hook 'unwrap'; let the plugin answer None for a module without a wrapper"
        )

    def _is_kept(self, module: Any, path: str, answer: Unwrapped) -> bool:
        """Return whether a handler describes a wrapper as a layer; such a wrapper stays."""
        is_around = answer.module is not module and isinstance(module, nn.Module)
        return is_around and answer_of(self._hooks, module, path) is not None

    def _ask(self, module: Any, path: str) -> Unwrapped | None:
        is_usual = isinstance(module, nn.Module) and _is_untouched(module)
        if is_usual and type(module) in self._plain:
            return None
        purpose, wanted = "to unwrap a module", "an Unwrapped"
        given = {"module": module, "needs_numbers": self._needs_numbers}
        try:
            answer: Unwrapped | None = first_answer(
                self._hooks, "unwrap", purpose, Unwrapped, wanted, **given
            )
        except CaptureError as error:
            raise CaptureError(f"{place_of(module, path)}: {error}") from error
        if answer is None and is_usual:
            self._plain.add(type(module))
        return answer

    def _note(self, module: nn.Module) -> None:
        """Save a module before its first change."""
        if id(module) not in self._before:
            self._before[id(module)] = module, type(module), dict(vars(module))

    def _change(self, module: nn.Module, answer: Unwrapped) -> None:
        self._note(module)
        _set(module, answer.cls or type(module), {**(answer.attributes or vars(module))})
        for name, make in answer.tensors.items():
            self._replace(module, name, make)

    def _replace(self, module: nn.Module, name: str, make: Callable[[], torch.Tensor]) -> None:
        registry = "_parameters" if name in module._parameters else "_buffers"
        members = vars(module)[registry]
        original = members[name]
        known = self._tensors.get(id(original))
        if known is None:
            plain = make()
            if original.requires_grad or isinstance(original, nn.Parameter):
                plain = nn.Parameter(plain, original.requires_grad)
            known = self._tensors[id(original)] = original, plain
        vars(module)[registry] = {**members, name: known[1]}

    def follow_attributes(self) -> None:
        """Replace tensors in plain attributes, too: recurrent layers list their weights there."""
        for module in self._modules if self._tensors else ():
            members = vars(module)
            followed = {
                name: self._followed(value)
                for name, value in members.items()
                if isinstance(value, torch.Tensor | list | tuple)
            }
            changed = {name: each for name, each in followed.items() if each is not members[name]}
            if changed:
                self._note(module)
                members.update(changed)

    def _followed(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            known = self._tensors.get(id(value))
            return value if known is None else known[1]
        if type(value) in (list, tuple) and any(id(each) in self._tensors for each in value):
            return type(value)(map(self._followed, value))
        return value

    def _on_meta(self, tensor: torch.Tensor | None, numbers: dict[int, torch.Tensor]) -> Any:
        if tensor is None or not is_plain(tensor) or tensor.is_meta:
            return tensor
        if id(tensor) not in self._tensors:
            twin = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
            )
            if isinstance(tensor, nn.Parameter):
                twin = nn.Parameter(twin, tensor.requires_grad)
            self._tensors[id(tensor)] = tensor, twin
            numbers[id(twin)] = tensor
        return self._tensors[id(tensor)][1]


def _is_untouched(module: nn.Module) -> bool:
    """Return whether a module has no hooks, no ``forward`` of its own, and no tensor subclasses."""
    members = vars(module)
    if "forward" in members or any(map(members.get, _HOOKS)):
        return False
    held = chain(members["_parameters"].values(), members["_buffers"].values())
    return _ARE_PLAIN.issuperset(map(type, held))


_ARE_PLAIN = PLAIN_CLASSES | {type(None)}


_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks"),
)


def _set(module: nn.Module, cls: type, attributes: dict[str, Any]) -> None:
    # The module's own __setattr__ may raise, or register the value.
    if type(module) is not cls:
        object.__setattr__(module, "__class__", cls)
    members = vars(module)
    members.clear()
    members.update(attributes)
