"""The statements at the beginning of a method that check its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layergraph.ir import Ref
from layergraph_source.context import Context
from layergraph_source.layout import indented
from layergraph_source.literals import quoted
from layergraph_source.steps import Step

_CHECKING = frozenset(
    {"layergraph.assume_container", "layergraph.assume_named", "layergraph.holds"}
)


class InputChecks:
    """Writes the checks of inputs.

    Args:
        context: the names of the module.
        receiver: the name of the module in its methods, such as ``self``.
        said: returns the expression of a value.
        variables: for each node, the variable of its value.
    """

    def __init__(
        self,
        context: Context,
        receiver: str,
        said: Callable[[Step, Any], str],
        variables: Mapping[str, str],
    ) -> None:
        self._context = context
        self._self = receiver
        self._said = said
        self._variables = variables

    def lines(self, inputs: Sequence[Step], steps: Sequence[Step]) -> list[str]:
        """Return the lines that check inputs.

        Args:
            inputs: the steps of the inputs.
            steps: all steps of the method.
        """
        lines = []
        for step in inputs:
            training = self._check(step, step.kwargs, steps, training=True)
            other = step.kwargs if step.evaluation is None else step.evaluation
            evaluation = self._check(step, other, steps, training=False)
            if training == evaluation:
                lines += training
                continue
            for prefix, own in (("", training), ("not ", evaluation)):
                if own:
                    lines += [f"if {prefix}{self._self}.training:", *indented(own)]
        return lines

    def _check(
        self, step: Step, kwargs: Mapping[str, Any], steps: Sequence[Step], *, training: bool
    ) -> list[str]:
        """Return the lines that check the known facts of an input in one mode."""
        name = self._variables[step.node.name]
        known = {key: value for key, value in kwargs.items() if key != "default"}
        if "fixed" in known:
            fixed = self._said(step, known["fixed"])
            where = quoted(f"the input {name!r}")
            return [f"{self._context.helper('_assume')}({name}, {fixed}, {where})"]
        # If a node of the graph checks an input, it needs no check here.
        is_checked = any(
            type(arg) is Ref and arg.node == step.node.name
            for each in steps
            if each.mode in (None, training) and each.node.implementation in _CHECKING
            for arg in each.args[:2]
        )
        if not known or is_checked:
            return []
        facts = [self._said(step, known.get(key)) for key in ("rank", "dtype")]
        given = [name, quoted(name), *facts]
        while given[-1] == "None":
            given.pop()
        return [f"{self._context.helper('_assume_tensor')}({', '.join(given)})"]
