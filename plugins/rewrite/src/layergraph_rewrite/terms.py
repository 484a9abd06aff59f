"""Terms: calls of layers and functions, written as code.

In a pattern, a term describes the calls that match. In an edit or a replacement, it describes the
call to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from layergraph.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite.calls import Call
    from layergraph_rewrite.sources import Source

Condition: TypeAlias = "Callable[[Call], bool]"
Uses: TypeAlias = Literal["inside", "any"] | int
Given: TypeAlias = (
    "torch.Tensor | Source | Callable[[], torch.Tensor] | Callable[[torch.Tensor], torch.Tensor]"
)
Tensors: TypeAlias = "Mapping[str, Given]"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A wildcard of a pattern: any value. The same one matches the same value everywhere.

    In an edit, :data:`VALUE` stands for the value at the place of the edit.

    Attributes:
        name: the name of the value in a match; empty to leave it out of the match.
    """

    name: str = ""


VALUE = Value("value")
"""The value at the place of an edit: ``function("torch.flatten")(VALUE, 1)``."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer: in a pattern an existing one, otherwise a new one. See :func:`layer`."""

    types: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    tensors: Tensors | None = None
    where: Condition | None = None
    uses: Uses = "inside"

    def __call__(self, *args: Any, **kwargs: Any) -> Applied:
        """Return a call of the layer with these arguments."""
        return Applied(self, args, kwargs)


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function by its name, or by one of several names. See :func:`function`."""

    names: tuple[str, ...]
    name: str | None = None
    where: Condition | None = None
    uses: Uses = "inside"
    is_commutative: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Applied:
        """Return a call of the function with these arguments."""
        return Applied(self, args, kwargs)


@dataclass(frozen=True, slots=True, eq=False)
class Existing:
    """The layer or function that a node calls, to call it again."""

    call: Call
    name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """A call of a layer or function with its arguments."""

    operation: Layer | Function | Existing
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Alternatives of a pattern; the first one that matches counts. See :func:`one_of`."""

    terms: tuple[Any, ...]


Operation: TypeAlias = Layer | Function | Existing
Term: TypeAlias = Applied | OneOf | Value


def layer(
    *types: str,
    name: str | None = None,
    tensors: Tensors | None = None,
    where: Condition | None = None,
    uses: Uses = "inside",
    **attributes: Any,
) -> Layer:
    """Return a layer, to call it in a pattern, a replacement or an edit.

    To call one new layer several times, call the returned object several times.

    Args:
        types: its type, such as ``"linear"``. A pattern may give several, of which one has to
            match, and ``*`` in them stands for any characters.
        name: in a pattern, the name of this call in the match. Otherwise the preferred name of the
            new layer; None: its type.
        tensors: the tensors of a new layer by name, or functions that compute them at the first
            access. If the layer replaces another one, a function may take the old tensor of that
            name. The constructor of the layer makes missing tensors.
        where: in a pattern, a condition on the :class:`Call` that would match.
        uses: in a pattern, the nodes that may read the result: ``"inside"``, only calls of the
            match; ``"any"``; or a number of nodes. Any node may read the last call of a pattern.
        attributes: the attributes. In a pattern, the layer must have these values, stated or as
            defaults, and may have more attributes.

    Example:
        >>> from layergraph_rewrite import layer
        >>> layer("conv2d", groups=1).attributes
        {'groups': 1}
    """
    for each in types:
        if type(each) is not str or not each:
            raise ArgumentError(f'{each!r} is no type of a layer; name one, as in layer("linear")')
    return Layer(types or ("*",), attributes, name, tensors, where, uses)


def function(
    *names: str,
    name: str | None = None,
    where: Condition | None = None,
    uses: Uses = "inside",
    commutative: bool = False,
) -> Function:
    """Return a function, to call it in a pattern, a replacement or an edit.

    Args:
        names: its name in the IR, such as ``"torch.flatten"``. A pattern may give several, of which
            one has to match, and ``*`` in them stands for any characters.
        name: in a pattern, the name of this call in the match. Otherwise the preferred name of the
            new node.
        where: in a pattern, a condition on the :class:`Call` that would match.
        uses: in a pattern, the nodes that may read the result: ``"inside"``, only calls of the
            match; ``"any"``; or a number of nodes. Any node may read the last call of a pattern.
        commutative: in a pattern, whether the first two arguments may be swapped.

    Example:
        >>> from layergraph_rewrite import VALUE, function
        >>> function("torch.flatten")(VALUE, 1).args[1]
        1
    """
    for each in names:
        if type(each) is not str or not each:
            raise ArgumentError(
                f'{each!r} is no name of a function; name one, as in function("torch.relu")'
            )
    return Function(names or ("*",), name, where, uses, commutative)


def anything(name: str = "") -> Value:
    """Return a wildcard of a pattern: any value.

    The parameters of a pattern are such wildcards, with their own names.

    Args:
        name: the name of the value in the match.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import anything, function
        >>> class Shift(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x + 2
        >>> match, = lg.find_matches(
        ...     lg.to_ir(Shift()), lambda x: function("operator.add")(x, anything("by"))
        ... )
        >>> match["by"]
        2
    """
    return Value(name)


def one_of(*terms: Any) -> OneOf:
    """Return alternatives of a pattern. The first one that matches counts.

    Args:
        terms: calls of layers or functions, wildcards or plain values.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import function, layer, one_of
        >>> def relu(x):
        ...     return one_of(layer("relu")(x), function("torch.relu")(x))
        >>> len(lg.find_matches(lg.to_ir(torch.nn.Sequential(torch.nn.ReLU())), relu))
        1
    """
    return OneOf(terms)


def applied(term: Any) -> Applied:
    """Return a term of an edit as a call; an uncalled layer or function takes VALUE.

    Raises:
        ArgumentError: the term is no call of a layer or function.
    """
    if isinstance(term, Layer | Function):
        return term(VALUE)
    if isinstance(term, Applied):
        return term
    raise ArgumentError(
        f'{term!r:.80} is no call to insert; write it as layer("relu") or '
        'function("torch.flatten")(VALUE, 1)'
    )


def renamed(operation: Operation, name: str | None) -> Operation:
    """Return a layer or function under another name."""
    return replace(operation, name=name)
