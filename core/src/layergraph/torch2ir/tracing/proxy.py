"""Proxies for the values that a model computes.

They extend the proxies of torch.fx, and refuse the operations that torch.fx would record wrongly.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from torch import fx

from layergraph.control_flow.guards import assume_length
from layergraph.errors import CaptureError
from layergraph.functions.names import attribute_name, method_name
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import TracedValue

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.symbolic_tracer import SymbolicTracer


class Proxy(fx.Proxy):
    """Proxy of a value; each operation on it is recorded."""

    node: Any
    tracer: Any

    def __init__(self, value: TracedValue, tracer: SymbolicTracer) -> None:
        object.__setattr__(self, "node", value)
        object.__setattr__(self, "tracer", tracer)

    def __repr__(self) -> str:
        return "<a value unknown without inputs>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        attribute, method = attribute_name(name), method_name(name)
        if attribute is None and method is None:
            raise CaptureError(f"the attribute {name!r} of a value is unknown without inputs")
        if attribute is not None and method is None:
            # Record the read now, not at its first use: autograd sums gradients in the order of the
            # calls, so another order changes their last bits.
            return self.tracer.function(attribute, (self,), {})
        return AttributeProxy(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        raise CaptureError(f"a graph cannot set the attribute {name!r} of a tensor")

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.function("operator.setitem", (self, index, value), {})

    def __delitem__(self, index: Any) -> None:
        raise CaptureError("a graph cannot delete an item of a value")

    def __eq__(self, other: object) -> Any:
        return self._compared("operator.eq", other)

    def __ne__(self, other: object) -> Any:
        return self._compared("operator.ne", other)

    def _compared(self, name: str, other: object) -> Any:
        # As tensors do: for NotImplemented, Python compares identities.
        is_no_tensor = other is None or isinstance(other, str)
        return NotImplemented if is_no_tensor else self.tracer.function(name, (self, other), {})

    __hash__ = fx.Proxy.__hash__

    def __bool__(self) -> bool:
        raise CaptureError("the model branches on a value that is unknown without inputs")

    def __len__(self) -> int:
        raise CaptureError("the length of a value is unknown without inputs")

    def __iter__(self) -> Iterator[Any]:
        """Unpack the value, if the bytecode of the caller says into how many names."""
        frame = sys._getframe(1)
        count = _names_in(frame.f_code).get(frame.f_lasti)
        if count is None:
            raise CaptureError(
                "the model loops over a value whose length is unknown without inputs"
            )
        self.tracer.function(_ASSUME_LENGTH, (self, count, code_place()), {})
        getitem = "operator.getitem"
        return iter([self.tracer.function(getitem, (self, n), {}) for n in range(count)])

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse a call of a value."""
        raise CaptureError("the model calls a value")


class AttributeProxy(fx.proxy.Attribute, Proxy):
    """A method or an attribute of a value: a call makes it a method, any other use an attribute."""

    def __init__(self, root: Proxy, attr: str) -> None:
        for name, value in (
            ("root", root),
            ("attr", attr),
            ("tracer", root.tracer),
            ("_node", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def node(self) -> Any:  # type: ignore[override]  # as in fx
        """The value of the attribute; the first access records it."""
        if self._node is None:
            name = attribute_name(self.attr)
            if name is None:
                raise CaptureError(f"the method {self.attr!r} of a value is not called, but kept")
            symbol = self.tracer.function(name, (self.root,), {})
            object.__setattr__(self, "_node", symbol.node)
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Record a call of the method."""
        name = method_name(self.attr)
        if name is None:
            raise CaptureError(f"{self.attr!r} is no method of a tensor that a graph can call")
        return self.tracer.function(name, (self.root, *args), kwargs)


_ASSUME_LENGTH = f"layergraph.{assume_length.__name__}"


@functools.lru_cache
def _names_in(code: CodeType) -> dict[int, int]:
    """Return, for each line that unpacks a value into a fixed number of names, that number."""
    found = dis.get_instructions(code)
    return {each.offset: each.argval for each in found if each.opname == "UNPACK_SEQUENCE"}


def _in_place(operator_name: str) -> Callable[[Proxy, Any], Any]:
    def method(self: Proxy, other: Any) -> Any:
        return self.tracer.function(f"operator.{operator_name}", (self, other), {})

    return method


# fx has no in-place operators: ``x += y`` would become ``x = x + y``, which leaves the other
# references to x unchanged.
for _name in "add and floordiv lshift matmul mod mul or pow rshift sub truediv xor".split():
    setattr(Proxy, f"__i{_name}__", _in_place(f"i{_name}"))
