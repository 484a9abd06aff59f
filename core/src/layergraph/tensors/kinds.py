"""Kinds of tensors other than dense blocks of numbers: taken apart into plain tensors, and rebuilt.

:class:`TensorKind` is a row of the hook ``tensor_kinds``; :class:`TensorKinds` asks the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from layergraph.errors import (
    BuildError,
    LayergraphError,
    Place,
    PluginError,
    StateError,
    first_line,
)
from layergraph.ir import Ir, Symbol, Value, map_leaves
from layergraph.literals import UnknownValueError, to_plain_literal, torch_value
from layergraph.tensors.memory import (
    PLAIN_CLASSES,
    is_block,
    is_plain,
    lie_alike,
    same_bits,
    without_class,
)

Parts = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class TensorKind:
    """A kind of tensors, such as sparse or quantized ones: one row of the hook ``tensor_kinds``.

    An IR describes such a tensor by its parts and its plain values. A file holds the parts, and
    names the kind. So ``unflatten`` may get arbitrary parts and values from a foreign file.

    Attributes:
        name: the name of the kind in an IR and in files, with that of the library:
            ``"torchao.Int8Tensor"``.
        flatten: ``flatten(tensor)`` returns the parts, plain tensors by name, and the plain values
            by name (numbers, texts, dtypes, and lists, tuples and dicts of them); None for a tensor
            of another kind. The two determine the tensor. The parts share the memory of the tensor,
            if they can.
        unflatten: ``unflatten(parts, values)`` returns the tensor, on the device of the parts,
            which may be the meta device. It checks the shapes, dtypes and values that kernels do
            not check, and raises a ValueError for those that ``flatten`` cannot return.

    Example:
        >>> import torch, layergraph as lg
        >>> def flatten(tensor):
        ...     if tensor.layout is not torch.sparse_coo or not tensor.is_coalesced():
        ...         return None
        ...     parts = {"indices": tensor.indices(), "values": tensor.values()}
        ...     return parts, {"size": list(tensor.shape)}
        >>> def unflatten(parts, values):
        ...     return torch.sparse_coo_tensor(
        ...         parts["indices"], parts["values"], values["size"], is_coalesced=True
        ...     )
        >>> kind = lg.TensorKind("acme.Sparse", flatten, unflatten)
        >>> parts, values = kind.flatten(torch.eye(2).to_sparse())
        >>> values
        {'size': [2, 2]}
        >>> kind.unflatten(parts, values).to_dense()
        tensor([[1., 0.],
                [0., 1.]])
    """

    name: str
    flatten: Callable[[torch.Tensor], tuple[Parts, dict[str, Any]] | None]
    unflatten: Callable[[Parts, dict[str, Any]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor taken apart.

    Attributes:
        kind: the name of its kind.
        parts: the plain tensors, by name.
        data: the plain values of an IR, by name.
    """

    kind: str
    parts: Parts
    data: dict[str, Any]


class TensorKinds:
    """The kinds of tensors that a converter knows.

    Args:
        rows: the rows of the hook; the first row of a name counts.
    """

    def __init__(self, rows: Iterable[TensorKind] = ()) -> None:
        self._rows: dict[str, TensorKind] = {}
        for row in rows:
            self._rows.setdefault(row.name, row)

    def __contains__(self, kind: object) -> bool:
        return kind in self._rows

    def flatten(self, tensor: torch.Tensor) -> Packed | None:
        """Take a tensor apart; None for a plain tensor, and for one of no known kind.

        Raises:
            PluginError: a row raises an exception, or breaks its contract.
        """
        if is_block(tensor):
            return None
        for row in self._rows.values():
            try:
                with _unseen():
                    found = row.flatten(tensor)
                    if found is not None:
                        return _packed(row.name, *found)
            except LayergraphError:
                raise
            except Exception as error:
                raise PluginError(
                    f"the kind of tensors {row.name!r} cannot take apart a "
                    f"{type(tensor).__qualname__}: {type(error).__name__}: {first_line(error)}"
                ) from error
        return None

    def unflatten(self, kind: str, parts: Parts, data: Mapping[str, Any]) -> torch.Tensor:
        """Make a tensor of its parts.

        Raises:
            BuildError: no plugin lists the kind, or it refuses these parts.
            PluginError: the result has other parts or values.
        """
        row = self._rows.get(kind)
        if row is None:
            library = kind.partition(".")[0]
            raise BuildError(
                f"no plugin that is asked lists the kind of tensors {kind!r}; install or enable "
                f"the distribution that does (layergraph-{library}, if it is one of layergraph)"
            )
        try:
            with _unseen():
                values = {name: map_leaves(_of_torch, value) for name, value in data.items()}
                made = row.unflatten(dict(parts), values)
        except LayergraphError:
            raise
        except Exception as error:
            # The message of a KeyError is a key.
            reason = f"there is no {error}" if isinstance(error, KeyError) else first_line(error)
            raise BuildError(
                f"the kind of tensors {kind!r} refuses its parts: {reason}; correct them"
            ) from error
        again = self.flatten(made) if isinstance(made, torch.Tensor) else None
        wanted = (kind, _said(data), _outline(parts))
        if again is None or (again.kind, _said(again.data), _outline(again.parts)) != wanted:
            raise BuildError(
                f"the kind of tensors {kind!r} makes another tensor of its parts and values; "
                "correct them"
            )
        return made

    def described(self, tensor: torch.Tensor) -> Packed | None:
        """Take a tensor apart, and check that its parts and values make an equal tensor.

        Returns:
            As :meth:`flatten`.

        Raises:
            PluginError: they make another tensor.
        """
        packed = self.flatten(tensor)
        if packed is None:
            return None
        try:
            made = self.unflatten(packed.kind, packed.parts, packed.data)
            again = self.flatten(made)
            with _unseen():
                found = None if again is None else _difference(tensor, packed, made, again)
        except BuildError as error:
            found = first_line(error)
        if found:
            raise PluginError(
                f"the kind of tensors {packed.kind!r} does not give back a "
                f"{type(tensor).__qualname__} that it takes apart: {found}; say in its parts and "
                "values all that the tensor consists of"
            )
        return packed

    def moved(
        self, tensor: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the tensor with changed parts, such as parts on another device."""
        packed = self.flatten(tensor)
        if packed is None:
            return change(tensor)
        parts = {name: change(part) for name, part in packed.parts.items()}
        return self.unflatten(packed.kind, parts, packed.data)

    def blocks(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the parts of a tensor of a known kind, and any other tensor itself."""
        packed = self.flatten(tensor)
        return [tensor] if packed is None else [*packed.parts.values()]

    def expanded(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors by key, with parts under ``KEY.PART`` in place of tensors of a known kind.

        Raises:
            StateError: two tensors would have one key.
        """
        found: dict[str, torch.Tensor] = {}
        for key, tensor in tensors.items():
            packed = self.described(tensor) if isinstance(tensor, torch.Tensor) else None
            named = {key: tensor} if packed is None else _named(key, packed.parts)
            for name, each in named.items():
                if name in found:
                    raise StateError(f"two tensors have the key {name!r}; rename one of them")
                found[name] = each
        return found

    def misfit(self, given: torch.Tensor, wanted: torch.Tensor) -> str | None:
        """Return why a tensor cannot replace another one, by kind and plain values.

        Returns:
            The predicate of a sentence about it; None if kind and plain values fit.
        """
        mine, other = self.flatten(given), self.flatten(wanted)
        kinds = [("plain tensor" if each is None else each.kind) for each in (mine, other)]
        if kinds[0] != kinds[1]:
            return f"is a {kinds[0]} where a {kinds[1]} is wanted"
        if mine is not None and other is not None and _said(mine.data) != _said(other.data):
            return f"is a {mine.kind} with {mine.data} where {other.data} is wanted"
        return None


@contextmanager
def _unseen() -> Iterator[None]:
    """Hide the calls of rows from the modes of torch, such as that of a capture."""
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        yield


def refuse_packed(ir: Ir, target: str) -> None:
    """Refuse an IR with tensors that consist of parts, for a target that has only plain tensors.

    Args:
        ir: the IR.
        target: the name of the target, for the error.

    Raises:
        BuildError: there is such a tensor.
    """
    for each in ir.values():
        for name, spec in each.tensors.items():
            if spec.packed is not None:
                place = Place("implementation", each.name).at("tensor", name)
                raise BuildError(
                    f"{place}: it is a {spec.packed.kind}, which {target} cannot hold; use a model "
                    "with plain tensors, such as the one before it was quantized"
                )


def _difference(was: Any, packed: Packed, made: Any, again: Packed) -> str | None:
    """Return the difference between a tensor rebuilt from its parts and the original."""
    classes = [torch.Tensor if type(each) in PLAIN_CLASSES else type(each) for each in (was, made)]
    if classes[0] is not classes[1]:
        return f"it is a {classes[1].__qualname__}"
    for name in ("shape", "dtype", "layout", "device"):
        if getattr(was, name) != getattr(made, name):
            return f"its {name} is {getattr(made, name)}, not {getattr(was, name)}"
    for name, part in packed.parts.items():
        if not part.is_meta and not _is_alike(part, again.parts[name]):
            return f"its part {name!r} has other numbers"
    # Classes that torch.compile supports describe their parts by this protocol.
    protocol = getattr(was, "__tensor_flatten__", None)
    if protocol is None:
        return None
    (names, context), (names_made, context_made) = protocol(), made.__tensor_flatten__()
    if list(names) != list(names_made) or repr(context) != repr(context_made):
        return f"its __tensor_flatten__() returns {(names_made, context_made)!r:.300}"
    for name in names:
        one, other = getattr(was, name), getattr(made, name)
        if is_plain(one) and is_plain(other) and not one.is_meta and not _is_alike(one, other):
            return f"its {name} has other numbers"
    return None


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return lie_alike(one, other) or same_bits(one, other)


def _named(key: str, parts: Parts) -> dict[str, torch.Tensor]:
    return {f"{key}.{name}": part for name, part in parts.items()}


def _of_torch(value: Value) -> Any:
    return torch_value(value) if isinstance(value, Symbol) else value


def _said(data: Mapping[str, Any]) -> dict[str, str]:
    # Texts, in which 1 differs from True, and NaN equals NaN.
    return {name: repr(value) for name, value in data.items()}


def _outline(parts: Mapping[str, torch.Tensor]) -> dict[str, object]:
    return {name: (part.shape, part.dtype) for name, part in parts.items()}


def _packed(kind: str, parts: Any, data: Any) -> Packed:
    """Check the answer of a row.

    Raises:
        PluginError: the answer breaks the contract.
    """
    for name, part in parts.items():
        is_named = isinstance(name, str) and name and "." not in name
        if not is_named or not isinstance(part, torch.Tensor) or not is_plain(part):
            raise PluginError(
                f"the kind of tensors {kind!r} returns the part {name!r}, which is no plain tensor "
                "with a name without a dot; take tensors apart into plain tensors"
            )
    plain = {name: without_class(part) for name, part in parts.items()}
    try:
        return Packed(kind, plain, {name: to_plain_literal(each) for name, each in data.items()})
    except UnknownValueError as error:
        raise PluginError(
            f"the kind of tensors {kind!r} returns {error} among its values; return plain values"
        ) from None
