"""The result of comparing two IRs."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from layergraph.ir import Value
from layergraph.ir.text import value_text
from layergraph_files.values import encode


class Absent(enum.Enum):
    """The marker for a missing value; None is a value."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

_MARKS = {"added": "+", "removed": "-", "changed": "~"}
_ONE_OF = {
    "data": "attribute",
    "tensors": "tensor",
    "children": "child",
    "nodes": "node",
    "edges": "edge",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two IRs.

    Attributes:
        layer: the name of the implementation with the difference; None for the IR as a whole.
        path: the place in the implementation, by the names of the fields of the IR:
            ``("data", "out_features")``, ``("nodes", "add", "args")``; empty for a whole layer.
        before: the old value; :data:`ABSENT` if something was added. Layers, nodes and new tensors
            are texts as ``print(ir)`` writes them, everything else is a plain value.
        after: the new value, in the same form; :data:`ABSENT` if something was removed.
    """

    layer: str | None
    path: tuple[str, ...]
    before: Value | Absent = ABSENT
    after: Value | Absent = ABSENT

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """Return the kind of the change."""
        if self.before is ABSENT:
            return "added"
        return "removed" if self.after is ABSENT else "changed"

    @property
    def is_text(self) -> bool:
        """Return whether ``before`` and ``after`` are texts about a layer, node, tensor or edge."""
        within = self.path[1:] if self.path[:1] == ("evaluation",) else self.path
        return not within or (len(within) == 2 and within[0] in ("nodes", "tensors", "edges"))

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON: values as in files, without absent ones."""
        form: dict[str, Any] = {"kind": self.kind, "layer": self.layer, "path": list(self.path)}
        for name in ("before", "after"):
            value = getattr(self, name)
            if value is not ABSENT:
                form[name] = encode(value)
        return form

    def __str__(self) -> str:
        said = [self._text(each) for each in (self.before, self.after) if each is not ABSENT]
        told = " -> ".join(said)
        return f"{_MARKS[self.kind]} {self._label()}{': ' if told else ''}{told}"

    def _text(self, value: Value) -> str:
        return value if self.is_text else value_text(value)

    def _label(self) -> str:
        if not self.path:
            return str(self.layer)
        words = list(self.path)
        before = ""
        if words[0] == "evaluation" and len(words) > 1:
            before = "evaluating, "
            del words[0]
        if len(words) > 1:
            words[:2] = [f"{_ONE_OF.get(words[0], words[0])} {words[1]}"]
        return before + ", ".join(words)


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences between two IRs; false if there are none. ``print`` lists them.

    Nodes have their names of the second IR. If an argument refers to a node that only the first IR
    has, the node is called ``removed NAME``.

    Attributes:
        changes: the changes, layer by layer.
    """

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def added(self) -> tuple[Change, ...]:
        """Return the items that only the second IR has."""
        return tuple(each for each in self.changes if each.kind == "added")

    @property
    def removed(self) -> tuple[Change, ...]:
        """Return the items that only the first IR has."""
        return tuple(each for each in self.changes if each.kind == "removed")

    @property
    def changed(self) -> tuple[Change, ...]:
        """Return the items that differ between the IRs."""
        return tuple(each for each in self.changes if each.kind == "changed")

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as JSON: ``{"changes": [{"kind", "layer", "path", …}, …]}``."""
        return {"changes": [each.to_dict() for each in self.changes]}

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the lines that ``print`` shows."""
        if not self.changes:
            yield "no differences"
        for layer, group in itertools.groupby(self.changes, key=lambda each: each.layer):
            found = list(group)
            if found[0].path:
                yield "the IR:" if layer is None else f"{layer}:"
                yield from (f"  {each}" for each in found)
            else:
                yield from map(str, found)
