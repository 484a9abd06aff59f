"""The module that a graph becomes."""

from __future__ import annotations

import copy
import functools
from typing import Any

from torch import fx, nn
from torch.fx.graph import PythonCode

# What nn.Module keeps of its own, and a rebuilt or copied module has to keep too. GraphModule takes
# over only what its graph names: a child that no call reaches would lose its state-dict keys.
_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_NOT_COPIED = ("_graph", "_code", "_lineno_map", "_prologue_start", "evaluation")


class Composite(fx.GraphModule):
    """A module that runs a graph, holding everything that the original held.

    ``print(module.code)`` shows what it runs; ``module.graph`` can be edited, as that of any
    :class:`torch.fx.GraphModule`.

    Args:
        members: a module that holds the children, parameters and buffers.
        graph: the graph, whose targets are found in ``members``.
        evaluation: the graph in evaluation mode, where that is another one.

    Attributes:
        evaluation: None, or a Composite with the graph in evaluation mode. It is no child: it runs
            on the children and tensors of this module.
    """

    evaluation: Composite | None

    def __init__(
        self, members: nn.Module, graph: fx.Graph, evaluation: fx.Graph | None = None
    ) -> None:
        second = None if evaluation is None else Composite(members, evaluation)
        nn.Module.__init__(self)
        self.__dict__["evaluation"] = second
        super().__init__(members, graph, "Composite")
        self.__dict__["evaluation"] = second
        for name in _REGISTERED:
            self.__dict__[name] = members.__dict__[name]

    def recompile(self) -> PythonCode:
        """Make the code anew, after the graph was edited."""
        code = super().recompile()
        cls: Any = type(self)
        train = cls.forward

        @functools.wraps(train)
        def forward(module: Composite, *args: Any, **kwargs: Any) -> Any:
            evaluation: Any = module.__dict__["evaluation"]
            if module.training or evaluation is None:
                return train(module, *args, **kwargs)
            return type(evaluation).forward(module, *args, **kwargs)

        if self.__dict__.get("evaluation") is not None:
            cls.forward = forward
        return code

    def _recompile_submodules(self) -> list[tuple[str, Any]]:
        # Children have graphs of their own, and are finished before their parents.
        return []

    def __deepcopy__(self, memo: dict[int, Any]) -> Composite:
        result: Composite = type(self).__new__(type(self))
        memo[id(self)] = result
        restore, arguments = self.__reduce__()
        return restore(*copy.deepcopy(arguments, memo), result)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        # GraphModule's own would trace the generated code anew, and lose what the code does not
        # name.
        own = {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}
        graphs = [self.graph] if self.evaluation is None else [self.graph, self.evaluation.graph]
        # Copies, because a graph knows the module that it belongs to.
        return _restored, (own, [copy.deepcopy(graph) for graph in graphs])


def _restored(
    own: dict[str, Any], graphs: list[fx.Graph], blank: Composite | None = None
) -> Composite:
    members = nn.Module()
    vars(members).update(own)
    result = Composite.__new__(Composite) if blank is None else blank
    Composite.__init__(result, members, *graphs)
    vars(result).update(own)
    return result
