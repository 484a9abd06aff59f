"""Methods: the graphs of an implementation as Python statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layergraph.errors import Place
from layergraph.ir import INPUT, OUTPUT, Implementation, Namer, Ref
from layergraph_source.checks import InputChecks
from layergraph_source.context import Context
from layergraph_source.functions import FunctionWriter
from layergraph_source.layout import INDENT, indented, laid_lines, laid_out
from layergraph_source.literals import UnspeakableError
from layergraph_source.naming import singular
from layergraph_source.readers import Readers
from layergraph_source.regions import Region, is_whole, regions_of
from layergraph_source.rolling import Loop, rolled
from layergraph_source.statements import StatementWriter
from layergraph_source.steps import Step, end_of_run, steps_of

# A longer expression is easier to read with a name.
_LONGEST_INLINE = 48
_LONGEST_CHAIN = 56
Reader = Callable[[str, Step], str]


class MethodWriter:
    """Writes one method.

    Args:
        context: the names of the module.
        functions: writes calls of functions.
        implementation: the implementation whose graphs to write.
        reader: returns the expression of the module or tensor that a node reads, from the module's
            expression.
        count: returns the number of items of the container that holds the called module.
        bodies: for each body, the name of its method.
    """

    def __init__(
        self,
        context: Context,
        functions: FunctionWriter,
        implementation: Implementation,
        reader: Reader,
        count: Callable[[Step], int],
        bodies: Mapping[str, str],
    ) -> None:
        self._context = context
        self._implementation = implementation
        self._reader = reader
        self._count = count
        self._place = Place("implementation", implementation.name)
        parameters = {
            name: each
            for graph in implementation.graphs
            for name, each in graph.parameters().items()
        }
        self._parameters = parameters
        self._namer = Namer({*parameters.values(), *context.taken()})
        taken = {*parameters.values()}
        self._self = "self" if "self" not in taken else Namer(taken).name("self")
        self._statements = StatementWriter(
            context, functions, self._reader_text, self._self, bodies
        )
        self._variables = self._statements.variables
        self._inline = self._statements.inline
        self._items = self._statements.items
        self._checks = InputChecks(context, self._self, self._said, self._variables)

    def write(self, name: str, *, is_root: bool) -> str:
        """Return the text of the method.

        Args:
            name: its name.
            is_root: whether it is the model's ``forward``. Other methods take positional arguments.
        """
        graphs = self._implementation.graphs
        steps = steps_of(graphs[0], graphs[1] if len(graphs) > 1 else None)
        if len(graphs) == 1 or is_whole(steps):
            signature, body = self._body(steps)
        else:
            signature, training = self._body(steps_of(graphs[0]))
            other, evaluation = self._body(steps_of(graphs[1]))
            signature = self._common(signature, other)
            body = [f"if {self._self}.training:", *indented(training), *evaluation]
        if is_root:
            signature = _with_keywords(signature, graphs[0].keyword_only())
        head = laid_out(f"def {name}({', '.join([self._self, *signature])}):", INDENT)
        return "\n".join([*head, *laid_lines(body or ["pass"], INDENT * 2)])

    def _common(self, one: list[str], other: list[str]) -> list[str]:
        """Return the parameters for both modes. A caller may pass more of them in one mode."""
        shorter, longer = sorted((one, other), key=len)
        if longer[: len(shorter)] != shorter:
            self._refuse(self._place, "its graphs of both modes take other inputs")
        more = longer[len(shorter) :]
        return [*shorter, *[each if "=" in each else f"{each}=None" for each in more]]

    def _body(self, steps: list[Step]) -> tuple[list[str], list[str]]:
        """Return the parameters and the lines of a method."""
        self._variables.clear()
        self._inline.clear()
        self._statements.readers = Readers(steps)
        self._namer = Namer({*self._parameters.values(), *self._context.taken()})
        inputs = [step for step in steps if step.node.type == INPUT]
        signature = [self._parameter(step) for step in inputs]
        for step in steps:
            if step.node.type not in (INPUT, OUTPUT):
                self._variable(step.node.name)
        others = [step for step in steps if step.node.type != INPUT]
        return signature, [*self._checks.lines(inputs, steps), *self._block(others)]

    def _parameter(self, step: Step) -> str:
        name = self._variables[step.node.name] = self._parameters[step.node.name]
        if "default" not in step.kwargs:
            return name
        return f"{name}={self._said(step, step.kwargs['default'])}"

    def _variable(self, node: str) -> str:
        if node not in self._variables:
            self._variables[node] = self._namer.name(node)
        return self._variables[node]

    # --- blocks ---

    def _block(self, steps: list[Step]) -> list[str]:
        lines: list[str] = []
        regions: dict[int, Region] | None = None
        at = 0
        while at < len(steps):
            step = steps[at]
            if step.mode is not None:
                end = end_of_run(steps, at, lambda each: each.mode)
                lines += self._by_mode(steps[at:end])
                at = end
                continue
            if step.when is not None:
                end = end_of_run(steps, at, lambda each: (each.when, each.mode))
                lines += self._conditional(steps[at:end])
                at = end
                continue
            if regions is None:
                regions = regions_of(steps)
            region = regions.get(at)
            if region is not None:
                args = [self._said(step, each) for each in step.args]
                lines.append(f"with {region.opening(self._context.torch, args)}:")
                lines += indented(self._block(steps[at + 1 : region.end]))
                at = region.end + 1
                continue
            loop = rolled(steps, at, self._reader_text, self._count, self._readers.of)
            if loop is not None:
                lines += self._rolled(loop, steps[at : loop.end])
                at = loop.end
                continue
            following = steps[at + 1] if at + 1 < len(steps) else None
            lines += self._step(step, following)
            at += 1
        return lines

    def _by_mode(self, steps: list[Step]) -> list[str]:
        training = [step for step in steps if step.mode]
        other = [step for step in steps if not step.mode]
        blocks = [self._block(self._changed(group, mode=None)) for group in (training, other)]
        mode = f"{self._self}.training"
        if not blocks[0]:
            return [f"if not {mode}:", *indented(blocks[1])]
        lines = [f"if {mode}:", *indented(blocks[0])]
        return [*lines, "else:", *indented(blocks[1])] if blocks[1] else lines

    def _conditional(self, steps: list[Step]) -> list[str]:
        when = steps[0].when
        assert when is not None  # noqa: S101
        condition, expected = when
        own = {step.node.name for step in steps}
        inner = self._changed(steps, when=None)
        name = self._variables[condition.node]
        head = f"if {name}:" if expected else f"if {name} is False:"
        lines = [head, *indented(self._block(inner) or ["pass"])]
        outside = [
            self._variables[each]
            for each in own
            if any(reader.when != when for reader in self._readers.after(each, steps[-1]))
        ]
        if outside:
            lines += ["else:", *indented(_without_value(sorted(outside)))]
        return lines

    def _rolled(self, loop: Loop, steps: Sequence[Step]) -> list[str]:
        originals = steps[: len(loop.steps)]
        item = self._namer.name(singular(loop.container.rpartition(".")[2]))
        lines = []
        for name, first in loop.carried.items():
            read = {id(step) for step in self._readers.of(first)}
            is_own = first not in self._inline and read <= {id(step) for step in originals}
            is_single = [*loop.carried.values()].count(first) == 1
            reads_it = any(first in step.reads for step in loop.steps)
            if is_own and is_single and not reads_it:
                self._variables[name] = self._variables[first]
            else:
                lines.append(f"{self._variables[name]} = {self._statements.value(Ref(first))}")
        self._rename(loop, steps)
        self._items[loop.first_item] = item
        inside: list[str] = []
        self._readers.put(loop.steps, originals)
        for at, step in enumerate(loop.steps):
            following = loop.steps[at + 1] if at + 1 < len(loop.steps) else None
            is_carried = step.node.name in loop.carried
            inside += self._step(step, None if is_carried else following)
        self._items.clear()
        return [*lines, f"for {item} in {loop.container}:", *indented(inside)]

    def _rename(self, loop: Loop, steps: Sequence[Step]) -> None:
        """Give the nodes of later turns the variables of the first turn."""
        count = len(loop.steps)
        for at, step in enumerate(steps):
            turn = steps[at - at % count :][:count]
            name = loop.renamed.get(step.node.name)
            if name is None:
                continue
            self._variables[step.node.name] = self._variables[name]
            # A value that is read outside of its iteration needs a variable.
            self._readers.take_over(name, step.node.name, turn)

    def _changed(self, steps: Sequence[Step], **fields: Any) -> list[Step]:
        """Return steps with other fields, in the places of the given ones."""
        changed = [replace(step, **fields) for step in steps]
        self._readers.put(changed, steps)
        return changed

    @property
    def _readers(self) -> Readers:
        return self._statements.readers

    # --- steps ---

    def _reader_text(self, step: Step) -> str:
        return self._reader(self._self, step)

    def _step(self, step: Step, following: Step | None = None) -> list[str]:
        node = step.node
        place = self._place.at("node", node.name)
        try:
            lines = self._statements.lines(step)
        except UnspeakableError as error:
            self._refuse(place, str(error))
            return []
        text = lines[0].removeprefix(f"{self._variables.get(node.name)} = ")
        is_short = len(lines) == 1 and text != lines[0] and len(text) <= _LONGEST_INLINE
        if not is_short or not self._is_inline(step, following):
            return lines
        self._inline[node.name] = text
        return []

    def _is_inline(self, step: Step, following: Step | None) -> bool:
        """Return whether only the next step reads a value, and once, so it needs no variable."""
        name = step.node.name
        return (
            following is not None
            and following.mode is None
            and following.when is None
            and self._readers.is_only(name, following)
        )

    def _said(self, step: Step, value: Any) -> str:
        try:
            return self._statements.value(value)
        except UnspeakableError as error:
            self._refuse(self._place.at("node", step.node.name), str(error))
            return "None"

    def _refuse(self, place: Place, message: str) -> None:
        self._context.problems.add(place, message, "change the model, or build it with to_torch")


def _without_value(names: Sequence[str]) -> list[str]:
    """Return lines that set variables to None."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > _LONGEST_CHAIN:
            lines.append("")
        lines[-1] += f"{name} = "
    return [f"{line}None" for line in lines]


def _with_keywords(signature: list[str], names: Collection[str]) -> list[str]:
    """Return the parameters of a method, with the keyword-only ones at the end."""
    by_name = [each for each in signature if each.partition("=")[0] in names]
    if not by_name:
        return signature
    return [*[each for each in signature if each not in by_name], "*", *by_name]
