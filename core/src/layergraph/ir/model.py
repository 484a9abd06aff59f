"""The intermediate representation of a whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from layergraph.errors import InvalidIrError, Place, Problem
from layergraph.ir.graph import Implementation
from layergraph.ir.hierarchy import derive_children

ROOT = "root"


class Ir(Mapping[str, Implementation]):
    """An ordered mapping from name to implementation, one of which is the model itself.

    Two Irs are equal if their implementations are, in the same order, with the same root.

    Args:
        implementations: in the order of the model, each with a name of its own. Children that an
            implementation does not state are derived from names and calls.
        root: the name of the implementation that is the model.

    Raises:
        InvalidIrError: a name is used twice, or the root is missing.
    """

    __slots__ = ("_implementations", "root")

    def __init__(self, implementations: Iterable[Implementation], root: str = ROOT) -> None:
        self.root = root
        self._implementations: dict[str, Implementation] = {}
        problems = []
        for implementation in implementations:
            if implementation.name in self._implementations:
                problems.append(
                    Problem(
                        Place("implementation", implementation.name),
                        "another implementation has the same name",
                        "give each its own",
                    )
                )
            self._implementations[implementation.name] = implementation
            children = implementation.children
            if children is not None and not _are_names(children):
                problems.append(
                    Problem(
                        Place("implementation", implementation.name),
                        f"its children are {children!r}",
                        "map the name of each child to that of its implementation",
                    )
                )
        if root not in self._implementations:
            problems.append(
                Problem(
                    Place("the IR"),
                    f"there is no implementation named {root!r}, the root",
                    "add it, or say which implementation is the root",
                )
            )
        if problems:
            raise InvalidIrError(problems)
        for name, children in derive_children(self._implementations, root).items():
            implementation = self._implementations[name]
            if implementation.children != children:
                self._implementations[name] = replace(implementation, children=children)

    def __getitem__(self, name: str) -> Implementation:
        return self._implementations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._implementations)

    def __len__(self) -> int:
        return len(self._implementations)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ir):
            return NotImplemented
        return self.root == other.root and list(self.values()) == list(other.values())

    __hash__ = None  # type: ignore[assignment]  # implementations can be edited

    def __repr__(self) -> str:
        return f"Ir({len(self)} implementations, root={self.root!r})"

    def __str__(self) -> str:
        from layergraph.ir.text import render

        return render(self)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The IR as nested dicts, in the form that :meth:`from_dict` reads.

        Returns:
            Name to implementation: ``name``, ``type``, ``nodes`` and ``edges``, and each attribute
            under its own name. Edges are keyed by ``(src, sink)``.
        """
        from layergraph.ir.dictionary import to_dict

        return to_dict(self)

    @classmethod
    def from_dict(cls, form: Mapping[str, Mapping[str, Any]]) -> Ir:
        """The IR that nested dicts describe, hand-written ones too.

        Raises:
            InvalidIrError: the dicts are not of that form. Whether the graphs in them make sense is
                for :func:`layergraph.check.check` to say.
        """
        from layergraph.ir.dictionary import from_dict

        return from_dict(form)

    def in_mode(self, *, training: bool) -> Ir:
        """The IR of one mode: no implementation has a second graph.

        Args:
            training: whether that of the training mode is wanted.
        """
        implementations = []
        for implementation in self.values():
            graph = implementation if training else implementation.graphs[-1]
            implementations.append(
                replace(implementation, nodes=graph.nodes, edges=graph.edges, evaluation=None)
            )
        return Ir(implementations, self.root)

    def flatten(self) -> Ir:
        """The one-level form: the root calls every leaf, and no other implementation has a graph.

        The model is the same, with the same state-dict keys. Implementations that are composed of
        others stay, without their graphs, for the paths and tensors that are theirs.

        Raises:
            InvalidIrError: the IR breaks a rule.
        """
        from layergraph.check import check
        from layergraph.ir.flatten import flatten

        check(self)

        return flatten(self)


def _are_names(children: object) -> bool:
    return isinstance(children, dict) and all(
        type(child) is str and type(target) is str for child, target in children.items()
    )
