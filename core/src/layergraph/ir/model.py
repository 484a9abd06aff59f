"""The intermediate representation of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layergraph.elsewhere import imported
from layergraph.gc_pause import gc_paused
from layergraph.ir.dictionary import from_dict, to_dict
from layergraph.ir.mapping import Implementations
from layergraph.ir.text import render
from layergraph.ir.validate import check

if TYPE_CHECKING:
    from layergraph_rewrite.select import Selection
    from layergraph_tools.guard_list import Guard


class Ir(Implementations):
    """A model: an ordered mapping from name to implementation, one of which is the model itself.

    Two Irs are equal if they have equal implementations in the same order, and the same root.

    Args:
        implementations: the implementations in the order of the model, each with a unique name. The
            Ir derives missing ``children`` from names and calls.
        root: the name of the implementation that is the model.

    Raises:
        InvalidIrError: two implementations have one name, or the root is missing.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> ir
        Ir(3 implementations, root='root')
        >>> ir["0"].attributes
        {'in_features': 2, 'out_features': 3, 'bias': True}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Ir({len(self)} implementations, root={self.root!r})"

    def __str__(self) -> str:
        return render(self)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the IR as nested dicts, in the form that :meth:`from_dict` reads.

        Returns:
            By name, each implementation: ``name``, ``type``, ``nodes`` and ``edges``, and each
            attribute under its own name. The keys of edges are ``(src, sink)``.

        Example:
            >>> import torch, layergraph as lg
            >>> lg.to_ir(torch.nn.ReLU()).to_dict()
            {'root': {'name': 'root', 'type': 'relu', 'nodes': {}, 'edges': {}}}
        """
        return to_dict(self)

    @classmethod
    @gc_paused()
    def from_dict(cls, form: Mapping[str, Mapping[str, Any]]) -> Ir:
        """Return the IR that nested dicts describe. You may write them by hand.

        This does not check the graphs: :func:`layergraph.ir.check` does.

        Args:
            form: the dicts, as :meth:`to_dict` returns them. ``nodes`` and ``edges`` may be
                missing.

        Raises:
            InvalidIrError: the dicts do not have this form.

        Example:
            >>> import layergraph as lg
            >>> print(lg.Ir.from_dict({"root": {"name": "root", "type": "relu"}}))
            root: relu()
        """
        return cls(*from_dict(form))

    @property
    def guards(self) -> list[Guard]:
        """Return the guards: facts that a rebuilt model checks, as the capture depends on them.

        Raises:
            InvalidIrError: the IR breaks a rule.
            MissingDistributionError: ``layergraph-tools`` is not installed.

        Example:
            >>> import torch, layergraph as lg
            >>> class First(torch.nn.Module):
            ...     def forward(self, x):
            ...         return x[0] if x.shape[0] > 1 else x
            >>> for guard in lg.to_ir(First(), (torch.ones(2, 3),)).guards:
            ...     print(guard.says)
            the input 'x' has the rank 2
            operator.gt(size, 1) is True
        """
        check(self)
        found: list[Guard] = imported("layergraph_tools.guard_list", "guards_of")(self)
        return found

    def copy(self) -> Ir:
        """Return a copy that shares no mutable object with this IR.

        Example:
            >>> import torch, layergraph as lg
            >>> ir = lg.to_ir(torch.nn.ReLU())
            >>> other = ir.copy()
            >>> other["root"].type = "gelu"
            >>> ir["root"].type
            'relu'
        """
        # Imported on first use, to keep start-up fast.
        from layergraph.ir.copying import copied_around

        copies = [copied_around(each, each, each.evaluation) for each in self.values()]
        for copy, each in zip(copies, self.values(), strict=True):
            copy.differs = None if each.differs is None else set(each.differs)
        return Ir(copies, self.root)

    def select(self, text: str = "", **options: Any) -> Selection:
        """Return the nodes that match, in execution order.

        Args:
            text: a path, a type with comparisons of attributes, or both: ``"layer*.* conv2d"``,
                ``"conv2d[groups>1, bias=True]"``. A single word is a type, the name of a function,
                or a path. ``*`` stands for any characters.
            options: more conditions, all of which hold: ``type``, ``path`` and ``function``, each a
                text in which ``*`` stands for any characters; ``where``, a function of a
                :class:`layergraph_rewrite.Call`; and attributes by name, each with its value.

        Returns:
            A list of :class:`layergraph_rewrite.Call`, with methods to narrow it down by relation:
            ``inside``, ``before``, ``after``, ``between``, ``feeding``, ``fed_by``.

        Raises:
            EditError: the text has another form.
            InvalidIrError: the IR breaks a rule.
            MissingDistributionError: ``layergraph-rewrite`` is not installed.

        Example:
            >>> import torch, layergraph as lg
            >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
            >>> ir.select("linear")
            Selection(root:_0)
        """
        found: Selection = imported("layergraph_rewrite.select", "select_in")(self, text, **options)
        return found

    def in_mode(self, *, training: bool) -> Ir:
        """Return a copy of the IR with the graphs of one mode only.

        Args:
            training: True for the training mode, False for the evaluation mode.

        Example:
            >>> import torch, layergraph as lg
            >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Dropout()))
            >>> ir.in_mode(training=False)["root"].evaluation is None
            True
        """
        # Imported on first use, to keep start-up fast.
        from layergraph.ir.copying import copied_around

        implementations = []
        for implementation in self.values():
            graph = implementation if training else implementation.graphs[-1]
            implementations.append(copied_around(implementation, graph))
        return Ir(implementations, self.root)

    @gc_paused()
    def flatten(self) -> Ir:
        """Return a copy of the IR with one level: the root calls each leaf.

        The copy describes the same model, with the same state-dict keys. Composites keep their
        children and tensors, and lose their graphs.

        Raises:
            InvalidIrError: the IR breaks a rule, or the graph of one level would be too large.
            MissingDistributionError: ``layergraph-rewrite`` is not installed.

        Example:
            >>> import torch, layergraph as lg
            >>> inner = torch.nn.Sequential(torch.nn.ReLU())
            >>> flat = lg.to_ir(torch.nn.Sequential(inner, torch.nn.Tanh())).flatten()
            >>> [node.type for node in flat["root"].nodes.values()]
            ['input', 'relu', 'tanh', 'output']
        """
        check(self)
        return Ir(imported("layergraph_rewrite.flatten", "flatten")(self), self.root)
