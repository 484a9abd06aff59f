"""Layers that their constructor arguments describe: one row each, or one decorator.

A plugin for classes of others lists rows, one for its own is a decorated class::

    @hookimpl
    def layers():
        return [Layer(nn.Linear, always=["bias"]), Layer(nn.Bilinear, always=["bias"])]

    @layer
    class Scale(nn.Module): ...
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar, get_overloads, overload

import torch
from torch import nn

from layergraph.declining import decline
from layergraph.errors import BuildError, PluginError
from layergraph.ir import Implementation, Value
from layergraph.ir.values import copied
from layergraph.symbols import UnknownValueError, lower_plain

C = TypeVar("C", bound=type[nn.Module])
Reader = Callable[[nn.Module], Value]
Writer = Callable[[Any], Any]

# What a module holds is compared by itself, and its mode with that of the module around it. The
# builder registers hooks on loading; without hooks on gradients it says nothing what they would be.
_NOT_COMPARED = frozenset(
    {
        "training",
        "_parameters",
        "_buffers",
        "_modules",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
        "_is_full_backward_hook",
    }
)


class Layer:
    """How one class of layers becomes an implementation, and back.

    The attributes are the arguments of the constructor, but for ``device`` and ``dtype``: those
    without a default always, the others where they differ from it.

    Args:
        cls: the class: exactly this one, since a subclass may compute something else.
        type: the type of the implementation; None: the name of the class in lower case, as in
            ``nn.BatchNorm2d`` and ``batchnorm2d``.
        always: arguments that are said even where they are the default.
        never: arguments that cannot be read off a module, and need not be.
        readers: how to read an argument off a module, where it is not the attribute of its name.
            Of a parameter or buffer only the presence counts: ``bias`` is True if there is one.
        writers: how to make what the constructor takes from the attribute, where that is not the
            attribute itself.
        derived: attributes of the module that follow from its tensors, and are not compared.

    Raises:
        PluginError: without a type, it would have the one of a layer of torch; or the class is no
            module.
    """

    def __init__(
        self,
        cls: type[nn.Module],
        type: str | None = None,  # noqa: A002 -- what it is called in the IR
        always: Collection[str] = (),
        never: Collection[str] = (),
        readers: Mapping[str, Reader] | None = None,
        writers: Mapping[str, Writer] | None = None,
        derived: Collection[str] = (),
    ) -> None:
        self.cls = cls
        self.type = _type_of(cls) if type is None else type
        self._readers = readers or {}
        self._writers = writers or {}
        self._always = frozenset(always)
        self._never = frozenset({"device", "dtype", *never})
        self._not_compared = _NOT_COMPARED | set(derived)
        self._references: dict[str, _Reference | None] = {}

    def check(self) -> None:
        """See whether the class takes the arguments that the row names.

        Raises:
            PluginError: it does not, or what it takes cannot be known.
        """
        parameters = _parameters(self.cls)
        unknown = {*self._always, *self._readers, *self._writers} - parameters.keys()
        if unknown:
            raise PluginError(
                f"{self.cls.__qualname__} takes no {', '.join(sorted(unknown))}; it takes "
                f"{', '.join(parameters) or 'nothing'}"
            )
        for parameter in parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise PluginError(
                    f"{self.cls.__qualname__} takes {str(parameter)!r}, which has no name that an "
                    "attribute could have; write handlers for it"
                )

    @functools.cached_property
    def _unsaid(self) -> dict[str, str | None]:
        """The plain values that go without saying, as text: in it, 1 is not True nor 0.0 -0.0."""
        return {
            name: None if name in self._always else repr(parameter.default)
            for name, parameter in _parameters(self.cls).items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in self._never
        }

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """The implementation of a module; None if it is not exactly what its arguments say.

        A module that was changed after it was made, by a pruned weight, a hook or an attribute set
        by hand, on it or on a module inside, is not the layer that its arguments describe.
        """
        data = self.read(module)
        if data is None:
            return None
        key = repr(data)
        if key not in self._references:
            self._references[key] = self._reference(data)
        reference = self._references[key]
        if reference is None:
            return decline(f"{self.cls.__qualname__} cannot be made from what it says: {data}")
        if not reference.is_like(module):
            return decline("it was changed after it was made, and is not what its arguments say")
        return Implementation(self.type, data)

    def read(self, module: nn.Module) -> dict[str, Value] | None:
        """The arguments that a module of the class seems to have been made with.

        None if one of them cannot be read, or is no plain value.
        """
        data: dict[str, Value] = {}
        try:
            for name, unsaid in self._unsaid.items():
                value = lower_plain(self._read(module, name))
                if unsaid is None or repr(value) != unsaid:
                    data[name] = value
        except (AttributeError, UnknownValueError):
            return decline(f"its argument {name!r} cannot be read off it, or is no plain value")
        return data

    def to_torch(self, implementation: Implementation) -> nn.Module:
        """The module that an implementation describes.

        Raises:
            BuildError: an attribute is none of the layer's, or there is a graph.
        """
        if implementation.nodes:
            raise BuildError(
                f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                "graph; give it the type 'module', which runs any graph"
            )
        data = implementation.attributes
        for name in data:
            if name not in self._unsaid:
                raise BuildError(
                    f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                    f"attribute {name!r}; it has {', '.join(self._unsaid) or 'none'}"
                )
        if hasattr(self.cls, "__deprecated__"):  # which whoever made the first one was told
            with _quiet():
                return self._make(data)
        return self._make(data)

    def _make(self, data: Mapping[str, Value]) -> nn.Module:
        # Copies: a list that a module keeps is its own, and not the implementation's.
        return self.cls(
            **{
                name: self._writers.get(name, _as_it_is)(copied(value))
                for name, value in data.items()
            }
        )

    def _read(self, module: nn.Module, name: str) -> Any:
        if name in self._readers:
            return self._readers[name](module)
        value = getattr(module, name)
        if name in module._parameters or name in module._buffers:
            return value is not None
        return value

    def _reference(self, data: Mapping[str, Value]) -> _Reference | None:
        try:
            with _quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
                return _Reference(self._make(data), self._not_compared)
        except Exception:  # its own attributes are none that it can be made from
            return None


def _type_of(cls: type[nn.Module]) -> str:
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise PluginError(f"{cls!r} is no class of modules; give a subclass of torch.nn.Module")
    name = cls.__name__
    if getattr(nn, name, None) is not cls and name.lower() in types_of_torch():
        home = cls.__module__.partition(".")[0]
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__} would have the type of a layer of torch; give it "
            f"another one, type={f'{home}_{name}'.lower()!r}, or, to take the place of torch's, "
            f"type={name.lower()!r}"
        )
    return name.lower()


@functools.cache
def types_of_torch() -> frozenset[str]:
    """The types that layers of torch have, where nothing else is said."""
    return frozenset(name.lower() for name, each in vars(nn).items() if isinstance(each, type))


def _parameters(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    try:
        return signature_of(cls).parameters
    except (TypeError, ValueError) as error:
        raise PluginError(f"what {cls.__qualname__} takes cannot be read: {error}") from error


def signature_of(cls: type[nn.Module]) -> inspect.Signature:
    """What a constructor takes.

    One that takes ``*args, **kwargs`` may say what these can be in overloads, of which the first
    counts, or may be wrapped, as those of deprecated classes are.
    """
    signature = inspect.signature(cls)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if kinds != {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return signature
    constructor: Callable[..., None] = cls.__init__
    signature = inspect.signature([*get_overloads(constructor), constructor][0])
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)


class _Reference:
    """A new layer, to which others of its class are compared."""

    def __init__(self, made: nn.Module, not_compared: Collection[str]) -> None:
        self._parts = [
            (
                part,
                _outline(part, children),
                vars(part).keys(),
                [item for item in vars(part).items() if item[0] not in not_compared],
            )
            for part, children in _walk(made)
        ]
        self._ties = _ties(made)

    def is_like(self, module: nn.Module) -> bool:
        """Whether all of a module is set as in the new one, but for the values of its tensors."""
        # Where the numbers differ, so do the children of one before.
        for (part, children), made in zip(_walk(module), self._parts, strict=True):
            new, outline, names, values = made
            own = vars(part)
            if _outline(part, children) != outline or part.training != module.training:
                return False
            if not own.keys() <= names and any(hasattr(new, name) for name in own.keys() - names):
                return False  # it is hidden
            for name, value in values:
                if name not in own:
                    return False
                if own[name] is not value and not _same(own[name], value):
                    return False
        # Ties of its own, the core knows about; those that the constructor makes, it cannot undo.
        return self._ties <= _ties(module) if self._ties else True


Children = list[tuple[str, int | None]]


def _walk(module: nn.Module) -> Iterator[tuple[nn.Module, Children]]:
    """A module and all inside it, each once, with the numbers of its children in this order."""
    found = [module]
    numbers = {id(module): 0}
    for part in found:
        children: Children = []
        for name, child in part._modules.items():
            if child is None:
                children.append((name, None))
                continue
            number = numbers.setdefault(id(child), len(found))
            if number == len(found):
                found.append(child)
            children.append((name, number))
        yield part, children


def _outline(part: nn.Module, children: Children) -> tuple[object, ...]:
    """What a module has inside that its arguments decide: other modules, and tensors."""
    return (
        type(part),
        children,
        [(name, _kind(tensor)) for name, tensor in part._parameters.items()],
        [(name, _kind(tensor)) for name, tensor in part._buffers.items()],
    )


def _kind(tensor: torch.Tensor | None) -> tuple[object, ...] | None:
    if tensor is None:
        return None
    dtype = tensor.dtype
    is_number = dtype.is_floating_point or dtype.is_complex
    return tensor.shape, isinstance(tensor, nn.Parameter), is_number


def _ties(module: nn.Module) -> set[tuple[int, int]]:
    """The pairs of tensors inside a module that are one, by their places."""
    first: dict[int, int] = {}
    listed = [
        tensor
        for part, _ in _walk(module)
        for tensor in (*part._parameters.values(), *part._buffers.values())
        if tensor is not None
    ]
    places = [first.setdefault(id(tensor), place) for place, tensor in enumerate(listed)]
    return {(place, mine) for mine, place in enumerate(places) if place != mine}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _as_it_is(value: Value) -> Any:
    return value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(one == other)
    except Exception:  # it is no plain value: arrays have no truth
        return False


class LayerTable:
    """The rows of one plugin.

    Args:
        layers: no two for the same class or type.

    Raises:
        PluginError: there are two for one class or type.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._by_class: dict[type[nn.Module], Layer] = {}
        self._by_type: dict[str, Layer] = {}
        for layer in layers:
            if layer.cls in self._by_class or layer.type in self._by_type:
                raise PluginError(
                    f"there are two rows for {layer.cls.__qualname__} or for the type "
                    f"{layer.type!r}; keep one"
                )
            self._by_class[layer.cls] = self._by_type[layer.type] = layer

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._by_type.values())

    def find(self, key: type | str) -> Layer | None:
        """The row for a class or for a type."""
        return self._by_type.get(key) if isinstance(key, str) else self._by_class.get(key)

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """Answer the hook ``torch_to_ir``: None unless there is a row for the exact class."""
        layer = self._by_class.get(type(module))
        return None if layer is None else layer.to_ir(module)

    def to_torch(self, implementation: Implementation) -> nn.Module | None:
        """Answer the hook ``ir_to_torch``: None unless there is a row for the type."""
        layer = self._by_type.get(implementation.type)
        return None if layer is None else layer.to_torch(implementation)


_MARK = "layergraph_layer"


@overload
def layer(cls: C, /) -> C: ...
@overload
def layer(
    *,
    type: str | None = None,
    always: Collection[str] = (),
    never: Collection[str] = (),
    readers: Mapping[str, Reader] | None = None,
    writers: Mapping[str, Writer] | None = None,
    derived: Collection[str] = (),
) -> Callable[[C], C]: ...
def layer(cls: Any = None, /, **said: Any) -> Any:
    """Decorate a class of a plugin: it is kept whole, with its own constructor arguments.

    As ``@layer``, or with the arguments of :class:`Layer`, ``@layer(type="acme_scale")``. The
    class has to be a global of the Python module that the entry point names, or be imported there
    from the same package.

    Returns:
        The class, which computes as before.

    Raises:
        PluginError: as for :class:`Layer`.
    """

    def mark(cls: C) -> C:
        setattr(cls, _MARK, Layer(cls, **said))
        return cls

    return mark if cls is None else mark(cls)


def marked_layers(module: ModuleType) -> list[Layer]:
    """The rows of the decorated classes that are globals of a Python module, each once.

    Those that it imported from another package are that package's.
    """
    package = module.__name__.partition(".")[0]
    rows: dict[type, Layer] = {}
    for each in vars(module).values():
        if isinstance(each, type) and each.__module__.partition(".")[0] == package:
            row = vars(each).get(_MARK)
            if isinstance(row, Layer):
                rows[each] = row
    return list(rows.values())
