"""The intermediate representation of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layergraph.gc_pause import gc_paused
from layergraph.ir.dictionary import from_dict, to_dict
from layergraph.ir.mapping import Implementations
from layergraph.ir.text import render
from layergraph.ir.validate import check


class Ir(Implementations):
    """A model: an ordered mapping from name to implementation, one of which is the model itself.

    Two Irs are equal if their implementations are, in the same order, with the same root.

    Args:
        implementations: in the order of the model, each with a name of its own. Children that an
            implementation does not state are derived from names and calls.
        root: the name of the implementation that is the model.

    Raises:
        InvalidIrError: a name is used twice, or the root is missing.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Ir({len(self)} implementations, root={self.root!r})"

    def __str__(self) -> str:
        return render(self)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The IR as nested dicts, in the form that :meth:`from_dict` reads.

        Returns:
            Name to implementation: ``name``, ``type``, ``nodes`` and ``edges``, and each attribute
            under its own name. Edges are keyed by ``(src, sink)``.
        """
        return to_dict(self)

    @classmethod
    @gc_paused()
    def from_dict(cls, form: Mapping[str, Mapping[str, Any]]) -> Ir:
        """The IR that nested dicts describe, hand-written ones too.

        Raises:
            InvalidIrError: the dicts are not of that form. Whether the graphs in them make sense is
                for :func:`layergraph.ir.check` to say.
        """
        return cls(*from_dict(form))

    def in_mode(self, *, training: bool) -> Ir:
        """The IR of one mode: no implementation has a second graph. It is a copy.

        Args:
            training: whether that of the training mode is wanted.
        """
        # What copies is imported when it is first needed.
        from layergraph.ir.copying import copied_around

        implementations = []
        for implementation in self.values():
            graph = implementation if training else implementation.graphs[-1]
            implementations.append(copied_around(implementation, graph))
        return Ir(implementations, self.root)

    @gc_paused()
    def flatten(self) -> Ir:
        """The one-level form: the root calls every leaf, and no other implementation has a graph.

        It is a copy. The model is the same, with the same state-dict keys. Implementations that
        are composed of others stay, without their graphs, for the paths and tensors that are
        theirs.

        Raises:
            InvalidIrError: the IR breaks a rule.
        """
        # What flattens is imported when it is first needed.
        from layergraph.ir.flatten import flatten

        check(self)
        return Ir(flatten(self), self.root)
