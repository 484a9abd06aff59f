"""The module that a graph becomes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from torch import fx, nn
from torch.fx.graph import PythonCode

from layergraph.regions import REGIONS, left_alone

# What nn.Module keeps of its own, and a rebuilt or copied module has to keep too. GraphModule takes
# over only what its graph names: a child that no call reaches would lose its state-dict keys.
_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_NOT_COPIED = ("_graph", "_code", "_lineno_map", "_prologue_start", "evaluation")


def descend(module: nn.Module, way: list[str]) -> nn.Module | None:
    """The module that a way of child names leads to; None if it leads nowhere."""
    for name in way:
        inner = module._modules.get(name)
        if inner is None:
            return None
        module = inner
    return module


def find(module: nn.Module, path: str) -> Any:
    """The child or tensor of a module at a path, or the mode of a child, whatever the names are.

    Returns:
        None if there is nothing of that name.
    """
    *way, last = path.split(".")
    owner = descend(module, way)
    if owner is None:
        return None
    for registered in (owner._modules, owner._parameters, owner._buffers):
        if registered.get(last) is not None:
            return registered[last]
    return owner.training if last == "training" else None


@functools.cache
def taken_names() -> frozenset[str]:
    """The attributes that every composite has, so that no child is found under their names."""
    return frozenset(dir(Composite(nn.Module(), {}, fx.Graph()))) - {"training"}


class Composite(fx.GraphModule):
    """A module that runs a graph, holding everything that the original held.

    ``print(module.code)`` shows what it runs; ``module.graph`` can be edited, as that of any
    :class:`torch.fx.GraphModule`.

    Args:
        members: a module that holds the children, parameters and buffers.
        aliases: names by which the graphs call what code cannot spell, to the paths that they mean.
        graph: the graph, whose targets are found in ``members``, or are aliases.
        evaluation: the graph in evaluation mode, where that is another one.

    Attributes:
        evaluation: None, or a Composite with the graph in evaluation mode. It is no child: it runs
            on the children and tensors of this module.
    """

    evaluation: Composite | None
    _aliases: dict[str, str]

    def __init__(
        self,
        members: nn.Module,
        aliases: Mapping[str, str],
        graph: fx.Graph,
        evaluation: fx.Graph | None = None,
    ) -> None:
        second = None if evaluation is None else Composite(members, aliases, evaluation)
        nn.Module.__init__(self)
        self.__dict__["evaluation"] = second
        # GraphModule looks up what the graph names, and here it is found; from then on, the class
        # of this one module knows the way.
        findable = nn.Module()
        vars(findable).update(vars(members))
        vars(findable).update({alias: find(members, path) for alias, path in aliases.items()})
        super().__init__(findable, graph, "Composite")
        for name in _REGISTERED:
            self.__dict__[name] = members.__dict__[name]
        self.__dict__.update(evaluation=second, _aliases=dict(aliases))
        for alias, path in aliases.items():
            self.__dict__.pop(alias, None)
            setattr(type(self), alias, property(functools.partial(find, path=path)))

    def recompile(self) -> PythonCode:
        """Make the code anew, after the graph was edited."""
        code = super().recompile()
        cls: Any = type(self)
        if any(node.op == "call_function" and node.target in REGIONS for node in self.graph.nodes):
            cls.forward = left_alone(cls.forward)
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
        return _restored, (own, [copy.deepcopy(graph) for graph in graphs], self._aliases)


def _restored(
    own: dict[str, Any],
    graphs: list[fx.Graph],
    aliases: dict[str, str],
    blank: Composite | None = None,
) -> Composite:
    members = nn.Module()
    vars(members).update(own)
    result = Composite.__new__(Composite) if blank is None else blank
    Composite.__init__(result, members, aliases, *graphs)
    vars(result).update(own)
    return result
