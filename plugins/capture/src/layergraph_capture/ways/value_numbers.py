"""Value numbering: equal names for values of a run that are equal for all inputs."""

from __future__ import annotations

from collections.abc import Iterator

from layergraph.ir import Value
from layergraph.ir.values import map_leaves
from layergraph.torch2ir.tracing.module_call import StateRead, TracedValue
from layergraph_capture.trackers.guards import Guards

SIZE, TO = "torch.Tensor.size", "torch.Tensor.to"

# Functions whose results depend on their arguments only.
_PURE = frozenset(
    f"{home}.{written}"
    for home in ("torch", "torch.Tensor", "operator")
    for name in (
        "all any eq ne lt le gt ge equal allclose isnan isinf isfinite logical_not logical_and "
        "logical_or logical_xor and_ or_ invert not_ sum prod min max amin amax mean abs to bool "
        "long int float item getitem view reshape flatten squeeze unsqueeze detach size dim numel "
        "add sub mul floordiv mod neg device dtype"
    ).split()
    for written in (name, f"__{name.rstrip('_')}__")
)

# By comparison and result, the arguments of which the first is at most the second.
_ORDERS = {
    ("operator.eq", True): ((0, 1), (1, 0)),
    ("operator.ne", False): ((0, 1), (1, 0)),
    ("operator.le", True): ((0, 1),),
    ("operator.lt", True): ((0, 1),),
    ("operator.gt", False): ((0, 1),),
    ("operator.ge", True): ((1, 0),),
    ("operator.gt", True): ((1, 0),),
    ("operator.lt", False): ((1, 0),),
}


def named_value(leaf: Value) -> Value:
    """Return a unique name for a traced value; return any other leaf unchanged."""
    return f"value {leaf.position} {id(leaf)}" if isinstance(leaf, TracedValue) else leaf


class ValueNumbers:
    """Names the values of a run.

    Args:
        guards: the guards of the run, whose comparisons of numbers hold for all inputs.
    """

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._by_value: dict[TracedValue, str] = {}
        self._by_call: dict[str, str] = {}

    def call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> str:
        """Return a text that is equal for calls that have equal results."""
        return repr((name, map_leaves(self._number, (args, kwargs))))

    def _number(self, leaf: Value) -> Value:
        if isinstance(leaf, StateRead):
            return f"state {leaf.key}"
        if not isinstance(leaf, TracedValue):
            return leaf
        if leaf not in self._by_value:
            self._by_value[leaf] = self._numbered(leaf)
        return self._by_value[leaf]

    def _numbered(self, value: TracedValue) -> str:
        call = value.call
        if call is not None and call.kind == "same":
            return str(self._number(call.args[0]))
        if call is None or call.target not in _PURE:
            return str(named_value(value))
        if self._is_first(value):
            return str(self._number(call.args[0]))
        args, kwargs = call.args, call.kwargs
        if call.target == TO:
            # A copy on another device has the same numbers.
            args = tuple([each for each in args if not _is_device(each)])
            kwargs = {key: each for key, each in kwargs.items() if key != "device"}
        return self._of_call(call.target, args, kwargs)

    def _of_call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> str:
        said = self.call(name, args, kwargs)
        return self._by_call.setdefault(said, f"result {len(self._by_call)}")

    def _is_first(self, value: TracedValue) -> bool:
        """Return whether a function returns a value that is equal to its first argument."""
        call = value.call
        if call is None or len(call.args) != 2:
            return False
        if call.target == "operator.add":
            return value.number is not None and type(call.args[1]) is int and call.args[1] == 0
        return call.target == "operator.getitem" and self._is_whole(*call.args)

    def _is_whole(self, tensor: Value, index: Value) -> bool:
        """Return whether an index selects all elements of a tensor by slices."""
        slices = index if isinstance(index, tuple) else (index,)
        return all(
            isinstance(each, slice)
            and each.start is None
            and each.step is None
            and (each.stop is None or self._is_at_most((tensor, dim), each.stop))
            for dim, each in enumerate(slices)
        )

    def _is_at_most(self, size: tuple[Value, ...], number: Value) -> bool:
        """Return whether the guards prove that a size of a tensor is at most a number."""
        goal = self._number(number)
        pending: list[Value] = [self._of_call(SIZE, size, {})]
        if pending[0] == goal:
            return True
        above: dict[Value, list[Value]] = {}
        for less, more in self._ordered():
            above.setdefault(less, []).append(more)
        seen: set[Value] = set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending += above.get(name, ())
        return goal in seen

    def _ordered(self) -> Iterator[tuple[Value, Value]]:
        """Yield pairs of numbers of which the first is at most the second."""
        for value, result in self._guards.comparisons:
            call = value.call
            if call is not None:
                for less, more in _ORDERS.get((call.target, result), ()):
                    yield self._number(call.args[less]), self._number(call.args[more])


def _is_device(leaf: Value) -> bool:
    call = leaf.call if isinstance(leaf, TracedValue) else None
    return call is not None and call.target == "torch.Tensor.device"
