"""Classes for composites: equal ones share a class, and their differences become its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layergraph.ir import MODULE, Implementation, Ir, Namer
from layergraph.ir.submodules import post_order
from layergraph_source.context import Context
from layergraph_source.layout import INDENT, laid_out
from layergraph_source.members import Made
from layergraph_source.naming import camel, singular
from layergraph_source.templates import Hole, Template, holes, rendered, skeleton

MOST_PARAMETERS = 8
"""A class with more parameters is harder to read than two classes."""


@dataclass(frozen=True, slots=True)
class Composite:
    """A composite, before classes are shared.

    Attributes:
        implementation: the composite.
        bases: the expression of the base class.
        fields: statements of the class.
        statements: the statements of its constructor.
        methods: the texts of its methods.
    """

    implementation: Implementation
    base: str
    fields: tuple[str, ...]
    statements: tuple[Template, ...]
    methods: tuple[str, ...]

    @property
    def form(self) -> tuple[object, ...]:
        """Return a key that is equal for composites that can share a class."""
        return self.base, self.fields, tuple(map(skeleton, self.statements)), self.methods

    @property
    def holes(self) -> list[Hole]:
        """Return the holes of its constructor."""
        return [hole for statement in self.statements for hole in holes(statement)]


class ClassWriter:
    """Writes the classes of all composites, inner ones first.

    Args:
        ir: the IR.
        context: the names of the module.
        class_name: the name of the class of the root.
    """

    def __init__(self, ir: Ir, context: Context, class_name: str) -> None:
        self._ir = ir
        self._context = context
        self._class_name = class_name
        self.made: dict[str, Made] = {}

    def write(self, describe: Callable[[str], Composite], last: Sequence[str]) -> list[str]:
        """Return the texts of the classes.

        Args:
            describe: returns the composite of a name; composites inside come first.
            last: statements at the end of the constructor of the root.
        """
        texts = []
        for level in _levels(self._ir):
            groups: dict[object, list[Composite]] = {}
            for name in level:
                each = describe(name)
                key = (each.form, name) if name == self._ir.root else each.form
                groups.setdefault(key, []).append(each)
            for group in groups.values():
                texts += [self._class(part, last) for part in _split(group)]
        return texts

    def _class(self, group: list[Composite], last: Sequence[str]) -> str:
        first = group[0]
        is_root = first.implementation.name == self._ir.root
        name = self._class_name if is_root else self._name(first.implementation.name)
        parameters, fills = _parameters(group, self._context)
        for each in group:
            texts = [hole.text for hole in each.holes]
            arguments = {parameter: texts[at] for parameter, at in parameters.items()}
            self.made[each.implementation.name] = Made(name, arguments)
        lines = [f"class {name}({first.base}):"]
        lines += [f"{INDENT}{field}" for field in first.fields]
        lines += [""] * bool(first.fields)
        init = _constructor(group, list(parameters), fills, last if is_root else ())
        blocks = [*init, *first.methods]
        if not blocks:
            return "\n".join([*lines, f"{INDENT}pass"])
        return "\n".join([*lines, "\n\n".join(blocks)])

    def _name(self, path: str) -> str:
        parts = [part for part in path.split(".") if not part.isdigit()] or ["block"]
        is_item = path.rpartition(".")[2].isdigit()
        wish = camel(singular(parts[-1]) if is_item else parts[-1])
        if wish in self._context.taken() and len(parts) > 1:
            wish = camel(singular(parts[-2])) + wish
        return self._context.class_name(wish)


def _constructor(
    group: list[Composite],
    parameters: Sequence[str],
    fills: Mapping[int, str],
    last: Sequence[str],
) -> list[str]:
    texts = [hole.text for hole in group[0].holes]
    lines = laid_out(f"def __init__({', '.join(['self', *parameters])}):", INDENT)
    deeper = INDENT * 2
    lines.append(f"{deeper}super().__init__()")
    number = 0

    def fill(at: int) -> str:
        return fills.get(at, texts[at])

    for statements in zip(*[each.statements for each in group], strict=True):
        text, number = rendered(statements, fill, number)
        lines += laid_out(text, deeper)
    for line in last:
        lines += laid_out(line, deeper)
    return ["\n".join(lines)] if len(lines) > 2 else []


def _levels(ir: Ir) -> list[list[str]]:
    """Return the composites by height: each level contains only composites of earlier levels."""
    heights: dict[str, int] = {}
    for name in post_order(ir):
        inner = [heights[child] for child in (ir[name].children or {}).values()]
        heights[name] = 1 + max(inner, default=0)
    levels: dict[int, list[str]] = {}
    for name in ir:
        if ir[name].type == MODULE and name in heights:
            levels.setdefault(heights[name], []).append(name)
    return [levels[height] for height in sorted(levels)]


def _split(group: list[Composite]) -> list[list[Composite]]:
    """Return the group, split by equal arguments if its class would take too many parameters."""
    vectors = {vector for vector in _vectors(group) if len({*vector}) > 1}
    if len(vectors) <= MOST_PARAMETERS:
        return [group]
    parts: dict[tuple[str, ...], list[Composite]] = {}
    for each in group:
        parts.setdefault(tuple(hole.text for hole in each.holes), []).append(each)
    return [*parts.values()]


def _vectors(group: Sequence[Composite]) -> list[tuple[str, ...]]:
    return list(zip(*[[hole.text for hole in each.holes] for each in group], strict=True))


def _parameters(
    group: Sequence[Composite], context: Context
) -> tuple[dict[str, int], dict[int, str]]:
    """Return the parameters, each with its first hole, and the parameter of each hole."""
    wishes = group[0].holes
    differing = [(at, v) for at, v in enumerate(_vectors(group)) if len({*v}) > 1]
    firsts: dict[tuple[str, ...], int] = {}
    for at, vector in differing:
        firsts.setdefault(vector, at)
    asked = [wishes[at].wish for at in firsts.values()]
    namer = Namer({"self", *context.taken()})
    names: dict[tuple[str, ...], str] = {}
    for vector, at in firsts.items():
        wish = wishes[at].wish
        is_clear = asked.count(wish) == 1
        names[vector] = namer.name(wish if is_clear else f"{wishes[at].owner}_{wish}")
    return {names[v]: at for v, at in firsts.items()}, {at: names[v] for at, v in differing}
