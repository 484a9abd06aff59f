"""One step of a method as Python statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layergraph.ir import FUNCTION, OUTPUT, STATE, Body, Ref, returned
from layergraph.ir.names import is_argument_name
from layergraph_source.context import Context
from layergraph_source.functions import IN_PLACE, FunctionWriter, operand
from layergraph_source.literals import UnspeakableError
from layergraph_source.readers import Readers
from layergraph_source.regions import REGIONS
from layergraph_source.steps import ByMode, Step


class StatementWriter:
    """Writes steps.

    Args:
        context: the names of the module.
        functions: writes calls of functions.
        reader: returns the expression of the module or tensor that a node reads.
        receiver: the name of the module in its methods, such as ``self``.
        bodies: for each body, the name of its method.

    Attributes:
        variables: for each node, the variable of its value.
        inline: for each node without a variable, the expression of its value.
        items: for each child that a loop calls, the variable of the loop.
        readers: the steps that read each value.
    """

    def __init__(
        self,
        context: Context,
        functions: FunctionWriter,
        reader: Callable[[Step], str],
        receiver: str,
        bodies: Mapping[str, str],
    ) -> None:
        self._context = context
        self._functions = functions
        self._reader = reader
        self._self = receiver
        self._bodies = bodies
        self.variables: dict[str, str] = {}
        self.inline: dict[str, str] = {}
        self.items: dict[str, str] = {}
        self.readers = Readers()

    def lines(self, step: Step) -> list[str]:
        """Return the statements of a step.

        Raises:
            UnspeakableError: no statement expresses it.
        """
        node = step.node
        if node.type == OUTPUT:
            value = returned(step.args)
            return [f"return {self.value(value)}"]
        args = [self.value(each) for each in step.args]
        kwargs = {name: self.value(each) for name, each in step.kwargs.items()}
        for name in kwargs:
            if not is_argument_name(name):
                raise UnspeakableError(f"{name!r} cannot be the name of an argument")
        if node.type == STATE:
            text = self._reader(step)
            if node.sets_state:
                return [f"{text} = {args[0]}", *self._none(step)]
            return self._assigned(step, text)
        if node.type != FUNCTION:
            target = self._reader(step)
            target = self.items.get(target, target)
            given = [*args, *[f"{key}={each}" for key, each in kwargs.items()]]
            return self._assigned(step, f"{target}({', '.join(given)})")
        return self._function(step, args, kwargs)

    def _function(self, step: Step, args: list[str], kwargs: dict[str, str]) -> list[str]:
        name = step.node.implementation
        if name in REGIONS:
            raise UnspeakableError("the region that it begins or ends is no block of this graph")
        if name == "operator.getitem" and len(args) == 2 and not kwargs:
            return self._assigned(step, f"{operand(args[0])}[{self._index(step.args[1])}]")
        if name == "operator.setitem" and len(args) == 3 and not kwargs:
            line = f"{operand(args[0])}[{self._index(step.args[1])}] = {args[2]}"
            return [line, *self._none(step)]
        if name == "operator.delitem" and len(args) == 2 and not kwargs:
            line = f"del {operand(args[0])}[{self._index(step.args[1])}]"
            return [line, *self._none(step)]
        if name in IN_PLACE and len(args) == 2 and not kwargs:
            # `x += 1` rebinds x if x is a number. So assign it to another variable first.
            variable = self.variables[step.node.name]
            return [f"{variable} = {args[0]}", f"{variable} {IN_PLACE[name]}= {args[1]}"]
        text = self._functions.call(name, step.args, args, kwargs)
        return self._assigned(step, text)

    def _assigned(self, step: Step, text: str) -> list[str]:
        name = step.node.name
        if name not in self.readers:
            return [text]
        return [f"{self.variables[name]} = {text}"]

    def _none(self, step: Step) -> list[str]:
        name = step.node.name
        return [f"{self.variables[name]} = None"] if name in self.readers else []

    def _index(self, index: Any) -> str:
        if type(index) is tuple and index:
            text = ", ".join(map(self._slice, index))
            return f"{text}," if len(index) == 1 else text
        return self._slice(index)

    def _slice(self, index: Any) -> str:
        if type(index) is not slice:
            return self.value(index)
        texts = ["" if each is None else self.value(each) for each in _parts(index)]
        is_plain = all(
            text.lstrip("-").isdigit() or text.isidentifier() or not text for text in texts
        )
        colon = ":" if is_plain else " : "
        start, stop, end = texts
        text = f"{start}{colon}{stop}".strip() if (start or stop) else ":"
        return f"{text}:{end}" if end else text

    def value(self, value: Any) -> str:
        """Return the expression of a value."""
        return self._context.value(value, self._leaf)

    def _leaf(self, value: Any) -> str | None:
        if type(value) is Ref:
            return self.inline.get(value.node) or self.variables[value.node]
        if type(value) is Body:
            return f"{self._self}.{self._bodies[value.implementation]}"
        if type(value) is ByMode:
            return f"{self._self}.training" if value.training else f"not {self._self}.training"
        return None


def _parts(index: slice) -> tuple[Any, Any, Any]:
    return index.start, index.stop, index.step
