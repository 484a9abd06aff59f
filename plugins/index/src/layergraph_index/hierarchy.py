"""The order of the implementations of a model, independent of their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from layergraph.ir import Implementation, Ir


@dataclass(slots=True)
class Member:
    """An implementation at its first place in the model.

    Attributes:
        implementation: the implementation.
        number: its position in the order. Its submodules follow it directly.
        children: the children in the order in which the graph calls them. Children that it does
            not call come last, in the order of the model.
        places: the number of each child, by name of the implementation.
        shared: for each implementation that has two places inside this one, but not both inside
            one child: the number of the parent and that of the child, for either place. Numbers of
            parents are relative to this member's.
    """

    implementation: Implementation
    number: int
    children: dict[str, str]
    places: dict[str, int] = field(init=False)
    shared: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = {}
        for place, name in enumerate(self.children.values()):
            self.places.setdefault(name, place)


_Above = list[tuple[Member, Iterator[tuple[int, str]]]]


class Hierarchy:
    """The implementations of a model in an order that does not depend on names, parents first.

    Args:
        ir: a checked IR.

    Attributes:
        members: the members by name, in that order.
    """

    def __init__(self, ir: Ir) -> None:
        self.members: dict[str, Member] = {}
        self._ir = ir
        # For each implementation, the largest number of dots in the name of a child.
        self._dots: dict[str, int] = {}
        self._numbers: dict[str, dict[str, int]] = {}
        last: dict[str, tuple[int, int]] = {}
        above: _Above = []
        self._enter(ir.root, above)
        while above:
            parent, children = above[-1]
            step = next(children, None)
            if step is None:
                above.pop()
                continue
            place, name = step
            if name in last:
                before = last[name]
                index = bisect_right(above, before[0], key=lambda each: each[0].number) - 1
                around = above[index][0]
                start = around.number
                pair = before[0] - start, before[1], parent.number - start, place
                around.shared.append(pair)
            else:
                self._enter(name, above)
            last[name] = parent.number, place

    def _enter(self, name: str, above: _Above) -> None:
        implementation = self._ir[name]
        children = _in_order(implementation)
        member = Member(implementation, len(self.members), children)
        self.members[name] = member
        above.append((member, enumerate(children.values())))

    def owner(self, key: str, name: str | None = None) -> tuple[Member, str]:
        """Return the implementation that has a tensor, and the name of the tensor in it.

        Args:
            key: the key of the tensor in the state dict of a module.
            name: the implementation of the module; None: the model.
        """
        parts = key.split(".")
        name, start = self._ir.root if name is None else name, 0
        while start < len(parts) - 1:
            step = self._step(name, parts, start)
            if step is None:
                break
            name, start = step
        return self.members[name], ".".join(parts[start:])

    def _step(self, name: str, parts: list[str], start: int) -> tuple[str, int] | None:
        children = self._ir[name].children
        if not children:
            return None
        if name not in self._dots:
            self._dots[name] = max(child.count(".") for child in children)
        # Longer names first, because one name may start with another.
        for end in range(min(start + self._dots[name] + 1, len(parts) - 1), start, -1):
            target = children.get(".".join(parts[start:end]))
            if target is not None:
                return target, end
        return None

    def number_of(self, member: Member, tensor: str) -> int | None:
        """Return the number of a tensor among those of an implementation; None if it has none."""
        implementation = member.implementation
        if implementation.name not in self._numbers:
            named = {name: number for number, name in enumerate(implementation.tensors)}
            self._numbers[implementation.name] = named
        return self._numbers[implementation.name].get(tensor)


def _in_order(implementation: Implementation) -> dict[str, str]:
    children = implementation.children or {}
    if len(children) < 2 or not implementation.nodes:
        return children
    by_target: dict[str, list[str]] = {}
    for child, target in children.items():
        by_target.setdefault(target, []).append(child)
    called: dict[str, None] = {}
    for graph in implementation.graphs:
        for node in graph.in_execution_order():
            if node.is_call:
                called.update(dict.fromkeys(by_target.get(node.implementation, ())))
    return {child: children[child] for child in dict.fromkeys([*called, *children])}
