"""The module that a graph becomes."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

# What nn.Module keeps of its own, and a rebuilt or copied module has to keep too. GraphModule takes
# over only what its graph names: a child that no call reaches would lose its state-dict keys.
_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")


class Composite(fx.GraphModule):
    """A module that runs a graph, holding everything that the original held.

    ``print(module.code)`` shows what it runs; ``module.graph`` can be edited, as that of any
    :class:`torch.fx.GraphModule`.

    Args:
        members: a module that holds the children, parameters and buffers.
        graph: the graph, whose targets are found in ``members``.
    """

    def __init__(self, members: nn.Module, graph: fx.Graph, class_name: str = "Composite") -> None:
        super().__init__(members, graph, class_name)
        self._adopt(members)

    def _adopt(self, members: nn.Module) -> None:
        for name in _REGISTERED:
            self.__dict__[name] = members.__dict__[name]

    def _recompile_submodules(self) -> list[tuple[str, Any]]:
        # Children have graphs of their own, and are finished before their parents.
        return []

    def __deepcopy__(self, memo: dict[int, Any]) -> Composite:
        graph = copy.deepcopy(self.graph, memo)
        kept = {name: value for name, value in self.__dict__.items() if name != "_graph"}
        members = nn.Module()
        members.__dict__.update(copy.deepcopy(kept, memo))
        result = Composite(members, graph, type(self).__name__)
        memo[id(self)] = result
        for name, value in members.__dict__.items():
            result.__dict__.setdefault(name, value)
            if "hook" in name or name in ("training", "meta"):
                result.__dict__[name] = value
        return result
