"""The module that a graph becomes."""

from __future__ import annotations

import copy
import functools
import textwrap
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import PythonCode

from layergraph.ir2torch.stored import StoredGraph, restored, stored
from layergraph.regions import REGIONS, ending

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


class Holder(nn.Module):
    """A module that holds constants: tensors that the original had without registering them.

    Here they are buffers that do not persist, so that they move to other devices with the model.
    But casting the model leaves them as they are, as it did in the original.
    """

    _uncast: frozenset[str] = frozenset()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Holder:
        before = {name: self._buffers[name] for name in self._uncast & self._buffers.keys()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, was in before.items():
            now = self._buffers[name]
            if was is not None and now is not None and (now.is_meta or not was.is_meta):
                self._buffers[name] = was.to(now.device)
        return self


class Composite(Holder, fx.GraphModule):
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
        self._uncast = getattr(members, "_uncast", frozenset())
        self.__dict__.update(evaluation=second, _aliases=dict(aliases))
        for alias, path in aliases.items():
            self.__dict__.pop(alias, None)
            setattr(type(self), alias, property(functools.partial(find, path=path)))

    def recompile(self) -> PythonCode:
        """Make the code anew, after the graph was edited."""
        self._refer_back_weakly()
        with self._written():
            code = super().recompile()
        cls: Any = type(self)
        # That of GraphModule takes two more frames of Python's stack for each level of a model.
        del cls.__call__
        if self.__dict__.get("evaluation") is not None:
            cls.forward = _ForwardByMode(cls.forward)
        return code

    def _refer_back_weakly(self) -> None:
        """Let the graph know its module without keeping it, and all its weights, alive."""
        graph: Any = self.graph

        def disown(_: object) -> None:
            graph.owning_module = None

        graph.owning_module = weakref.proxy(self, disown)

    def _written(self) -> AbstractContextManager[Any]:
        """How the code is written: inside a ``with`` statement if it has regions to end."""
        graph = self.graph
        if not any(node.op == "call_function" and node.target in REGIONS for node in graph.nodes):
            return nullcontext()

        def inside(body: list[str]) -> list[str]:
            return ["with self._ending_regions():\n", textwrap.indent("".join(body), "    ")]

        return graph.on_generate_code(
            lambda before: inside if before is None else lambda body: inside(before(body))
        )

    def _ending_regions(self) -> AbstractContextManager[None]:
        return ending()

    def _recompile_submodules(self) -> list[tuple[str, Any]]:
        # Children have graphs of their own, and are finished before their parents.
        return []

    def __deepcopy__(self, memo: dict[int, Any]) -> Composite:
        result: Composite = type(self).__new__(type(self))
        memo[id(self)] = result
        graphs = [copy.deepcopy(graph, memo) for graph in self._graphs()]
        return _made(copy.deepcopy(self._own(), memo), graphs, self._aliases, result)

    def __reduce__(self) -> tuple[Any, ...]:
        # GraphModule's own would trace the generated code anew, and lose what the code does not
        # name.
        return _unpickled, (self._own(), [stored(each) for each in self._graphs()], self._aliases)

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}

    def _graphs(self) -> list[fx.Graph]:
        return [self.graph] if self.evaluation is None else [self.graph, self.evaluation.graph]


class _ForwardByMode:
    """The forward of a module with two graphs, which takes no frame of Python's stack to choose."""

    def __init__(self, train: Callable[..., Any]) -> None:
        @functools.wraps(train)
        def forward(module: Composite, *args: Any, **kwargs: Any) -> Any:
            return self._chosen(module)(module, *args, **kwargs)

        self._train = train
        self._either = forward

    def __get__(self, module: Composite | None, _: type | None = None) -> Callable[..., Any]:
        return self._either if module is None else self._chosen(module).__get__(module)

    def _chosen(self, module: Composite) -> Callable[..., Any]:
        evaluation: Any = module.__dict__["evaluation"]
        if module.training or evaluation is None:
            return self._train
        return type(evaluation).forward  # type: ignore[no-any-return]


def _made(
    own: dict[str, Any], graphs: list[fx.Graph], aliases: dict[str, str], blank: Composite
) -> Composite:
    members = nn.Module()
    vars(members).update(own)
    Composite.__init__(blank, members, aliases, *graphs)
    vars(blank).update(own)
    return blank


def _unpickled(
    own: dict[str, Any], graphs: list[StoredGraph], aliases: dict[str, str]
) -> Composite:
    return _made(own, [restored(each) for each in graphs], aliases, Composite.__new__(Composite))
