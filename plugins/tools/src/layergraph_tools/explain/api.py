"""``explain``: which plugin handles a module, a class or a type, in both directions."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from layergraph.ir import Implementation
from layergraph.ir2torch import Ir2Torch
from layergraph.torch2ir import Torch2Ir
from layergraph_tools.explain.chain import Explanation


def explain(
    subject: nn.Module | type[nn.Module] | str, *, disable: Collection[str] = ()
) -> Explanation:
    """Return which handler converts a layer, and the answers of all others, in order.

    Args:
        subject: a module, a class of modules, or the name of a type. For a class or a type, rows
            of layers are looked up; every other handler is called with an instance of the class
            that has no attributes (its constructor does not run), or with an implementation of the
            type that has none.
        disable: as for :class:`layergraph.torch2ir.Torch2Ir`.

    Returns:
        For a module or a class, the handlers that turn it into an IR, then those that build it from
        the IR. For a type, those that build it. ``print`` shows all of them.

    Raises:
        PluginError: the subject is none of these, or the plugins cannot be called.

    Example:
        >>> import layergraph as lg
        >>> print(lg.explain("relu").chains[0].winner)  # doctest: +ELLIPSIS
        answers   layergraph-activation ... (activation), built-in, ...
    """
    if isinstance(subject, str):
        return Ir2Torch(disable=disable).explain(subject)
    there = Torch2Ir(disable=disable).explain(subject)
    became = there.chains[0].answer
    if isinstance(became, Implementation):
        return there + Ir2Torch(disable=disable).explain(became)
    row = there.chains[0].row
    return there if row is None else there + Ir2Torch(disable=disable).explain(row.type)
