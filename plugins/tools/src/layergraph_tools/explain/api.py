"""Who answers for a module, a class or a type, in both directions."""

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
    """Who answers for something, in the order in which they are asked, and who declines and why.

    Args:
        subject: a module, of which all is known; a class of modules; or the name of a type. Rows of
            layers say what they are for. Of other handlers it is found out, for a class by an
            instance that no constructor has made, for a type by an implementation without
            attributes: whoever does not decline it is taken to answer.
        disable: as for :class:`layergraph.torch2ir.Torch2Ir`.

    Returns:
        For a module or a class, who turns it into an IR, then who builds what it became.

    Raises:
        PluginError: the subject is none of these, or the plugins cannot be asked.
    """
    if isinstance(subject, str):
        return Ir2Torch(disable=disable).explain(subject)
    there = Torch2Ir(disable=disable).explain(subject)
    became = there.chains[0].answer
    if isinstance(became, Implementation):
        return there + Ir2Torch(disable=disable).explain(became)
    row = there.chains[0].row
    return there if row is None else there + Ir2Torch(disable=disable).explain(row.type)
