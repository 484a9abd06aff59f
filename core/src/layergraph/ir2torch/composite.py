"""The module that runs a graph.

Each graph has a class, and each module is an instance: modules with equal graphs share the class
and its code. ``module.graph`` makes a copy of the graph for the instance. Recompiling an edited
graph makes a new class for the instance.
"""

from __future__ import annotations

import copy
import functools
import itertools
import textwrap
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen, PythonCode
from torch.package.package_exporter import PackageExporter
from torch.package.package_importer import PackageImporter

from layergraph.control_flow.choices import called
from layergraph.control_flow.regions import REGIONS, ending
from layergraph.control_flow.states import SETTER, set_buffer
from layergraph.errors import BuildError
from layergraph.ir2torch.code_check import compiled_forward
from layergraph.ir2torch.codegen import generated_code
from layergraph.ir2torch.holder import Holder
from layergraph.ir2torch.paths import find
from layergraph.ir2torch.pickling import StoredGraph, restored, stored
from layergraph.ir2torch.scripting import own_containers, scriptable
from layergraph.torch_versions import has, python_code

# The registries of nn.Module that a rebuilt or copied module keeps. GraphModule keeps only what its
# graph names: a child that no node calls would lose its state-dict keys.
_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_COMPILED = ("_code", "_lineno_map", "_prologue_start")
_NOT_COPIED = (*_COMPILED, "evaluation", "_bodies")
# The graphs that users have read or set. Not an attribute, because torch.export of torch 2.9 reads
# the graph during the run, and refuses a module that gets an attribute then.
_graph_of: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


@functools.cache
def taken_names() -> frozenset[str]:
    """Return the names of attributes of each composite, which hide children of the same names."""
    return frozenset(dir(Composite(nn.Module(), {}, fx.Graph()))) - {"training"}


class Composite(Holder, fx.GraphModule):
    """A module that runs a graph, with the children and tensors of the original.

    ``print(module.code)`` shows the code; ``module.graph`` can be edited, as in any
    :class:`torch.fx.GraphModule`.

    Args:
        members: a module that holds the children, parameters and buffers.
        aliases: for each path that code cannot spell, the name that the graphs use instead: alias
            to path.
        graph: the graph. Its targets are paths in ``members``, or aliases.
        evaluation: the graph in evaluation mode, if it is another one.
        bodies: by the name of a method, a graph that functions in these graphs run.

    Attributes:
        evaluation: a Composite with the graph in evaluation mode, or None. It is not a child, and
            runs on the children and tensors of this module.
    """

    # torch.jit.script reads annotations, and fails on these types.
    if TYPE_CHECKING:
        evaluation: Composite | None
        _aliases: dict[str, str]
        _bodies: dict[str, fx.Graph]
    # torch.jit.script compiles all other properties.
    __jit_unused_properties__ = [*fx.GraphModule.__jit_unused_properties__, "_graph"]  # noqa: RUF012
    # The graph from which the code of the class was made; None if an instance has the graph.
    _source = cast("fx.Graph | None", None)

    def __init__(
        self,
        members: nn.Module,
        aliases: Mapping[str, str],
        graph: fx.Graph,
        evaluation: fx.Graph | None = None,
        *,
        bodies: Mapping[str, fx.Graph] = MappingProxyType({}),
    ) -> None:
        second = None
        if evaluation is not None:
            second = Composite(members, aliases, evaluation, bodies=bodies)
        nn.Module.__init__(self)
        self.__dict__["evaluation"] = second
        # The constructor of GraphModule reads each target of the graph from this module. After
        # that, properties of the class find them.
        findable = nn.Module()
        vars(findable).update(vars(members))
        vars(findable).update({alias: find(members, path) for alias, path in aliases.items()})
        vars(findable).update(dict.fromkeys((*bodies, SETTER)))
        super().__init__(findable, graph, "Composite")
        for found in (*aliases, *bodies, SETTER):
            self.__dict__.pop(found, None)
        self._hold(members)
        self.__dict__.update(evaluation=second, _aliases=dict(aliases), _bodies=dict(bodies))
        self._make_findable()
        type(self)._source = _graph_of.pop(self)
        graph.owning_module = None

    def alike(self, members: nn.Module) -> Composite:
        """Return a module that runs the same code on other members.

        Args:
            members: a module with children and tensors of the same names.
        """
        result: Composite = object.__new__(type(self))
        nn.Module.__init__(result)
        # The other attributes of GraphModule: metadata, hooks, and the code.
        kept = vars(self).keys() - vars(result).keys() - {"evaluation"}
        vars(result).update({name: copy.copy(vars(self)[name]) for name in kept})
        second = None if self.evaluation is None else self.evaluation.alike(members)
        vars(result).update(evaluation=second, training=members.training)
        result._hold(members)
        return result

    def _hold(self, members: nn.Module) -> None:
        for name in _REGISTERED:
            self.__dict__[name] = members.__dict__[name]
        for name in ("_uncast", "_unnarrowed", "_kept_modes"):
            if name in members.__dict__:
                self.__dict__[name] = members.__dict__[name]

    def _make_findable(self) -> None:
        """Add a descriptor to the class for each alias and for each child that the code calls.

        Bodies are methods: their code reads the children and tensors of the module.
        """
        cls = type(self)
        for name, graph in self._bodies.items():
            setattr(cls, name, compiled_forward(generated_code(graph), graph._co_fields))
        for alias, path in self._aliases.items():
            setattr(cls, alias, _member(path))
        for node in itertools.chain(
            self.graph.nodes, *[each.nodes for each in self._bodies.values()]
        ):
            if node.op == "call_module":
                name = str(node.target).partition(".")[0]
                if name in self._modules and has("exported_descriptors"):
                    setattr(cls, name, _Child(name))

    @property
    def _graph(self) -> fx.Graph:
        graph = _graph_of.get(self)
        if graph is None:
            graph = copy.deepcopy(type(self)._source)
            if graph is None:
                raise AttributeError("a Composite without a graph")
            self._refer_back_weakly(graph)
            _graph_of[self] = graph
        return graph

    @_graph.setter
    def _graph(self, graph: fx.Graph) -> None:
        _graph_of[self] = graph

    def recompile(self) -> PythonCode:
        """Make the code again, after an edit of the graph."""
        self._refer_back_weakly(self.graph)
        if type(self)._source is not None:
            self.__class__ = type(fx.GraphModule.__new__(Composite))
            type(self).__name__ = "Composite"
            self._make_findable()
        code = self._written() if _has_usual_code(self.graph) else self._written_by_user()
        cls: Any = type(self)
        if self.__dict__.get("evaluation") is not None:
            cls.forward = _ForwardByMode(cls.forward)
        return code

    def _written(self) -> PythonCode:
        code = generated_code(self.graph)
        cls: Any = type(self)
        cls.forward = compiled_forward(code, self.graph._co_fields)
        self._code, self._lineno_map, self._prologue_start = code.source, code.nodes_of_lines, 1
        return python_code(code.source, code.globals, code.nodes_of_lines)

    def _written_by_user(self) -> PythonCode:
        """Let torch.fx make the code, because the user has set a code generator of their own."""
        with self._inside_regions():
            code = super().recompile()
        cls: Any = type(self)
        # GraphModule.__call__ takes two more Python frames for each level of a model.
        del cls.__call__
        return code

    def _refer_back_weakly(self, graph: Any) -> None:
        """Give the graph a weak reference to its module, so that it keeps no weights alive."""

        def disown(_: object) -> None:
            graph.owning_module = None

        graph.owning_module = weakref.proxy(self, disown)

    def _inside_regions(self) -> AbstractContextManager[Any]:
        """Return a context in which torch.fx writes code with regions inside a ``with`` block."""
        graph = self.graph
        if not any(
            node.op == "call_function" and called(node.target, node.args) in REGIONS
            for node in graph.nodes
        ):
            return nullcontext()

        def inside(body: list[str]) -> list[str]:
            return ["with self._ending_regions():\n", textwrap.indent("".join(body), "    ")]

        return graph.on_generate_code(
            lambda before: inside if before is None else lambda body: inside(before(body))
        )

    def _ending_regions(self) -> AbstractContextManager[None]:
        return ending()

    def _set_state(self, path: str, value: object) -> None:
        owner, _, name = self._aliases.get(path, path).rpartition(".")
        set_buffer(self.get_submodule(owner), name, value)

    def _recompile_submodules(self) -> list[tuple[str, Any]]:
        # The build compiles children before their parents.
        return []

    def __deepcopy__(self, memo: dict[int, Any]) -> Composite:
        result: Composite = type(self).__new__(type(self))
        memo[id(self)] = result
        graphs = [copy.deepcopy(graph, memo) for graph in self._graphs()]
        bodies = {name: copy.deepcopy(each, memo) for name, each in self._bodies.items()}
        return _made(copy.deepcopy(self._own(), memo), graphs, self._aliases, bodies, result)

    def __reduce__(self) -> tuple[Any, ...]:
        # GraphModule.__reduce__ traces the code again, and loses children that the code does not
        # name.
        bodies = {name: stored(each) for name, each in self._bodies.items()}
        graphs = [stored(each) for each in self._graphs()]
        return _unpickled, (self._own(), graphs, self._aliases, bodies)

    def __reduce_package__(self, _: PackageExporter) -> tuple[Any, ...]:
        # GraphModule.__reduce_package__ writes the source text, and the globals would be missing.
        return _unpackaged, self.__reduce__()[1]

    def __prepare_scriptable__(self) -> Composite:
        """Return the module that torch.jit.script compiles instead of this one."""
        if self.evaluation is not None:
            raise BuildError(
                "torch.jit.script cannot take a module with another graph in evaluation mode; "
                "script what to_torch(ir.in_mode(training=False)) gives, or training=True"
            )
        members = nn.Module()
        vars(members).update(vars(self), _modules=own_containers(self, {}))
        result = self.alike(members)
        result.graph = scriptable(copy.deepcopy(self.graph))
        return result

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}

    def _graphs(self) -> list[Any]:
        both = [self] if self.evaluation is None else [self, self.evaluation]
        return [_graph_of.get(each, each._source) for each in both]


def _has_usual_code(graph: fx.Graph) -> bool:
    codegen = graph._codegen
    return type(codegen) is CodeGen and codegen._body_transformer is None


def _member(path: str) -> property:
    """Return a property that finds the member at a path."""

    def get(module: nn.Module) -> Any:  # Dynamo of torch 2.9 reads no functools.partial
        return find(module, path)

    return property(get)


class _Child:
    """A descriptor that finds a child in half the time of ``nn.Module.__getattr__``.

    If there is no child of the name, ``nn.Module.__getattr__`` looks for a parameter or buffer.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: nn.Module | None, _: type | None = None) -> Any:
        if module is None:
            return self
        child = module._modules.get(self._name)
        if child is None:
            raise AttributeError(self._name)  # Python calls nn.Module.__getattr__ then
        return child


class _ForwardByMode:
    """The ``forward`` of a module with two graphs. The choice adds no Python frame."""

    def __init__(self, train: Callable[..., Any]) -> None:
        @functools.wraps(train)
        def forward(module: Composite, *args: Any, **kwargs: Any) -> Any:
            return self._chosen(module)(module, *args, **kwargs)

        self._train = train
        self._either = forward

    def __get__(self, module: Composite | None, _: type | None = None) -> Callable[..., Any]:
        if module is None:
            return self._either
        chosen = self._chosen(module)
        if torch.compiler.is_dynamo_compiling():
            # In older releases of torch, Dynamo does not follow what binds a function.
            return functools.partial(chosen, module)
        return chosen.__get__(module)  # type: ignore[no-any-return]

    def _chosen(self, module: Composite) -> Callable[..., Any]:
        evaluation: Any = module.__dict__["evaluation"]
        if module.training or evaluation is None:
            return self._train
        return type(evaluation).forward  # type: ignore[no-any-return]


def _made(
    own: dict[str, Any],
    graphs: list[fx.Graph],
    aliases: dict[str, str],
    bodies: dict[str, fx.Graph],
    blank: Composite,
) -> Composite:
    members = nn.Module()
    vars(members).update(own)
    Composite.__init__(blank, members, aliases, *graphs, bodies=bodies)
    vars(blank).update(own)
    return blank


def _unpackaged(
    _: PackageImporter,
    own: dict[str, Any],
    graphs: list[StoredGraph],
    aliases: dict[str, str],
    bodies: Mapping[str, StoredGraph] = MappingProxyType({}),
) -> Composite:
    return _unpickled(own, graphs, aliases, bodies)


def _unpickled(
    own: dict[str, Any],
    graphs: list[StoredGraph],
    aliases: dict[str, str],
    bodies: Mapping[str, StoredGraph] = MappingProxyType({}),
) -> Composite:
    run = {name: restored(each) for name, each in bodies.items()}
    made = [restored(each) for each in graphs]
    return _made(own, made, aliases, run, Composite.__new__(Composite))
