"""Rules of the hierarchy: children exist, each has a parent, and none contains itself."""

from __future__ import annotations

from collections.abc import Iterator

from layergraph.ir.graph import BODY
from layergraph.ir.mapping import Implementations
from layergraph.ir.rules.problems import Problems, place_of


def check_hierarchy(problems: Problems, ir: Implementations) -> None:
    """Check the children of all implementations."""
    for implementation in ir.values():
        for child, target in (implementation.children or {}).items():
            if target in ir and target != ir.root and ir[target].type != BODY:
                continue
            place = (place_of(implementation), "child", child)
            if target not in ir:
                problems.add(
                    place,
                    f"it is {target!r}, which is no implementation",
                    "add the implementation or remove the child",
                )
            elif target == ir.root:
                problems.add(place, "it is the root", "remove the child")
            else:
                problems.add(place, f"it is {target!r}, a body, no module", "remove the child")
    reached = _check_circles(problems, ir)
    for name, implementation in ir.items():
        if name not in reached and implementation.type != BODY:
            problems.add(
                place_of(implementation),
                "no implementation has it as a child",
                "add it to the children of one, or remove it",
            )


def _check_circles(problems: Problems, ir: Implementations) -> set[str]:
    """Find implementations that contain themselves; return those that the root contains."""
    reached = {ir.root}
    finished: set[str] = set()
    stack = [(ir.root, _targets(ir, ir.root))]
    while stack:
        name, targets = stack[-1]
        target = next(targets, None)
        if target is None:
            finished.add(name)
            stack.pop()
        elif target not in reached:
            reached.add(target)
            stack.append((target, _targets(ir, target)))
        elif target not in finished:
            problems.add(
                place_of(ir[name]), f"it contains {target!r}, which contains it", "break the circle"
            )
    return reached


def _targets(ir: Implementations, name: str) -> Iterator[str]:
    return iter([target for target in (ir[name].children or {}).values() if target in ir])
