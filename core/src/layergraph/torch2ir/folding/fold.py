"""Folding of the sequence of calls to one graph per module.

A module call is a range of the sequence. The values that it reads from outside are its inputs, the
values that others read from it are its outputs. So flags, dicts and output classes among arguments
and results need no special case.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch

from layergraph.errors import CaptureError
from layergraph.ir import (
    MODULE,
    ROOT,
    STATE,
    Graph,
    Implementation,
    Ir,
    TensorSpec,
    Value,
)
from layergraph.ir.modes import own_mode
from layergraph.tensors.state import describe_constant
from layergraph.torch2ir.folding.conditions import conditional
from layergraph.torch2ir.folding.graph_builder import GraphBuilder
from layergraph.torch2ir.folding.interfaces import Interface, interfaces
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.overrides import runs_around_forward
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    ModuleCall,
    Trace,
    TracedValue,
    inside_out,
    values_in,
)
from layergraph.torch2ir.tracing.other_mode import OtherMode, is_mode_call


@dataclass(slots=True, eq=False)
class _Graph:
    """The graph that all calls of one module share."""

    implementation: Implementation
    keeps_type: bool
    bodies: list[Implementation]


class Draft(NamedTuple):
    """The implementations of a model in one mode, which no IR has taken yet.

    An IR binds calls to its implementations. So graphs for another IR are copied first.

    Attributes:
        implementations: the implementations.
        root: the name of the root.
    """

    implementations: list[Implementation]
    root: str

    def ir(self) -> Ir:
        """Return the IR of these implementations."""
        return Ir(self.implementations, self.root)


class Folded:
    """A captured model, folded to one graph per module.

    Args:
        module_index: the model's modules.
        trace: the recorded calls.
        tensors: the specs of the tensors, by module path.

    Attributes:
        draft: the implementations of the model.

    Raises:
        CaptureError: a constant cannot be described.
    """

    def __init__(
        self, module_index: ModuleIndex, trace: Trace, tensors: dict[str, dict[str, TensorSpec]]
    ) -> None:
        self._module_index = module_index
        self._trace = trace
        self._tensors = tensors
        self._folding = Fold(module_index, trace, trace.scopes, interfaces(trace.scopes))
        self.draft = self._folding.fold().draft(tensors)

    def with_other(self, other: OtherMode) -> Draft | None:
        """Return the draft of the other mode; None if its module calls have other interfaces."""
        borders = self._folding.interfaces
        if any(_leaks(each.scope, borders[each.scope]) for each in other.replaced):
            return None
        known = self._folding.unchanged(other)
        with other.swapped():
            scopes = self._trace.scopes
            if other.replaced:
                scopes = list(inside_out(self._trace.root))
                inside = [interfaces(inside_out(each.scope)) for each in other.replaced]
                borders = {key: each for found in inside for key, each in found.items()} | borders
            again = partial(Fold, self._module_index, self._trace, scopes, borders)
            folding = again().fold(known)
            if folding.dissolves:
                # Two calls of one module that were equal now differ, so their callers change too.
                folding = again().fold()
            return folding.draft(self._tensors)


def _leaks(scope: ModuleCall, interface: Interface) -> bool:
    """Return whether code outside of a module call reads a value that it does not return."""
    return not interface.outputs.keys() <= {*values_in(scope.result)}


class Fold:
    """One pass over the module calls of a trace, which makes a graph of each module.

    Attributes:
        interfaces: the inputs and outputs of each module call.
        kinds: the kinds of tensors that the model may hold.
    """

    def __init__(
        self,
        module_index: ModuleIndex,
        trace: Trace,
        scopes: Sequence[ModuleCall],
        interfaces: dict[ModuleCall, Interface],
    ) -> None:
        self.interfaces = interfaces
        self.kinds = module_index.kinds
        self._module_index = module_index
        self._trace = trace
        self._scopes = scopes
        self._parameters = {parameter.value: parameter for parameter in trace.parameters}
        self._graphs: dict[str, _Graph] = {}
        self._dissolved: dict[ModuleCall, list[Call | ModuleCall]] = {}
        self._root_name = _free_root_name(module_index)

    def fold(self, known: Mapping[str, _Graph] = MappingProxyType({})) -> Fold:
        """Make the graphs of all modules except the known ones."""
        self._graphs |= known
        for scope in self._scopes:
            if scope.path not in known and not scope.function:
                self._fold(scope)
        return self

    @property
    def dissolves(self) -> bool:
        """Return whether a module call is inlined into its caller."""
        return bool(self._dissolved)

    def unchanged(self, other: OtherMode) -> dict[str, _Graph]:
        """Return the graphs that are the same in the other mode."""
        if self.dissolves:
            return {}
        others = {each.call.value.scope.path for each in other.changed}
        others |= {scope.path for each in other.replaced for scope in each.scopes()}
        return {path: graph for path, graph in self._graphs.items() if path not in others}

    # --- module calls ---

    def _fold(self, scope: ModuleCall) -> None:
        items = self.inlined(scope.items)
        module_info = self._module_index.at(scope.path)
        builder = GraphBuilder(self, scope, self.interfaces[scope])
        graph = builder.build(items)
        bodies = builder.bodies
        if scope.parent is not None and not self._is_self_contained(module_info, graph, *bodies):
            self._dissolved[scope] = items
            return
        keeps_type = self._keeps_type(module_info, scope)
        if keeps_type and module_info.answer is not None:
            graph = replace(graph, type=module_info.answer.type, data=module_info.answer.data)
        known = self._graphs.get(scope.path)
        if known is None:
            self._graphs[scope.path] = _Graph(graph, keeps_type, bodies)
        elif (known.keeps_type, known.implementation, known.bodies) != (keeps_type, graph, bodies):
            # The module makes other calls than last time: inline them into the caller.
            self._dissolved[scope] = items

    def inlined(self, own: list[Call | ModuleCall]) -> list[Call | ModuleCall]:
        """Return the items of a module call after inlining.

        Args:
            own: the items of the call or of a body.
        """
        if not self._dissolved:
            return own
        items: list[Call | ModuleCall] = []
        for item in own:
            inside = self._dissolved.get(item) if isinstance(item, ModuleCall) else None
            if inside is None:
                items.append(item)
            else:
                items += inside if item.when is None else self._conditional(inside, item.when)
        return items

    def _conditional(
        self, items: Sequence[Call | ModuleCall], when: Condition
    ) -> Iterator[Call | ModuleCall]:
        for item, copied in conditional(items, when):
            if isinstance(item, ModuleCall) and isinstance(copied, ModuleCall):
                self.interfaces[copied] = self.interfaces[item]
            yield copied

    def _is_self_contained(self, module_info: ModuleInfo, *graphs: Graph) -> bool:
        """Return whether a module calls and reads only what is inside it."""
        return all(
            self._module_index.at(node.implementation).is_within(module_info)
            for graph in graphs
            for node in graph.nodes.values()
            if node.is_call or node.type == STATE
        )

    def _keeps_type(self, module_info: ModuleInfo, scope: ModuleCall) -> bool:
        """Return whether the recorded calls are the ones that the ``forward`` of a container makes.

        Only then can the rebuilt model use the class of the container, such as Sequential.
        """
        if module_info.answer is None:
            return False
        called = [item for item in scope.items if isinstance(item, ModuleCall)]
        if any(item.function for item in called):
            return False
        # Most containers only call modules, which this finds out without Python code for each.
        if "function" in map(_KIND, scope.items) and any(map(_computes, scope.items)):
            return False
        return self._is_plain(scope) and all(
            item not in self._dissolved and self._is_plain(item) and not self._calls_itself(item)
            for item in called
        )

    def _calls_itself(self, scope: ModuleCall) -> bool:
        """Return whether a module runs code around ``forward``, which its caller's graph holds."""
        return runs_around_forward(self._module_index.at(scope.path).module)

    def _is_plain(self, scope: ModuleCall) -> bool:
        interface = self.interfaces[scope]
        outputs = list(interface.outputs)
        if scope.parent is None and all(map(is_mode_call, scope.items)):
            outputs = list(scope.args)
        return (
            not scope.kwargs
            and all(item.when is None for item in scope.items)
            and list(scope.args) == list(interface.inputs)
            and [scope.result] == outputs
        )

    def said_of(self, value: TracedValue, scope: ModuleCall) -> dict[str, Value]:
        """Return the attributes of an input node."""
        said: dict[str, Value] = {}
        if scope.parent is None and value in self._parameters:
            said |= self._parameters[value].said()
        if value.rank is not None and "rank" in scope.known:
            said["rank"] = value.rank
        if value.dtype is not None and "dtype" in scope.known:
            said["dtype"] = value.dtype
        return said

    def is_by_name(self, value: TracedValue, scope: ModuleCall) -> bool:
        """Return whether an input is a keyword-only argument."""
        known = self._parameters.get(value) if scope.parent is None else None
        return known is not None and known.by_name

    def type_of(self, path: str) -> str:
        """Return the type of the implementation of a composite."""
        return self._graphs[path].implementation.type

    def constant(self, key: str) -> torch.Tensor:
        """Return a tensor that the model has not registered."""
        return self._trace.constants[key]

    def leaf_type(self, path: str) -> str:
        """Return the type of a leaf."""
        answer = self._module_index.at(path).answer
        if answer is None:
            raise CaptureError(f"{path!r} is no leaf")
        return answer.type

    # --- the whole ---

    def name_at(self, path: str) -> str:
        """Return the name of the implementation of a module."""
        return path or self._root_name

    def draft(self, tensors: dict[str, dict[str, TensorSpec]]) -> Draft:
        """Return the implementations of the model, with the specs of their tensors."""
        tensors = self._with_attributes(tensors)
        implementations: list[Implementation] = []
        for module_info in self._module_index:
            implementation = self._implementation(module_info)
            around = module_info.parents[0].module.training if module_info.parents else True
            training = module_info.module.training
            implementations.append(
                Implementation(
                    type=implementation.type,
                    data=implementation.data,
                    name=self.name_at(module_info.path),
                    nodes=implementation.nodes,
                    edges=implementation.edges,
                    children=None
                    if module_info.is_leaf
                    else {
                        name: self.name_at(child.path)
                        for name, child in module_info.children.items()
                    },
                    tensors=tensors[module_info.path] | implementation.tensors,
                    kept_modes=module_info.kept_modes,
                    training=own_mode(training=training, around=around),
                )
            )
            if module_info.path in self._graphs:
                implementations += self._graphs[module_info.path].bodies
        return Draft(implementations, self._root_name)

    def _with_attributes(
        self, tensors: dict[str, dict[str, TensorSpec]]
    ) -> dict[str, dict[str, TensorSpec]]:
        """Return the tensors of modules with their plain attributes that the graphs set."""
        for key, tensor in self._trace.constants.items():
            if not key.startswith(":"):
                path, _, name = key.rpartition(".")
                spec = describe_constant(tensor, repr(key), self.kinds)
                tensors = {**tensors, path: {**tensors[path], name: spec}}
        return tensors

    def _implementation(self, module_info: ModuleInfo) -> Implementation:
        if module_info.path in self._graphs:
            return self._graphs[module_info.path].implementation
        answer = module_info.answer
        if answer is None:
            return Implementation(type=MODULE)
        return Implementation(type=answer.type, data=answer.data)


_KIND = operator.attrgetter("kind")


def _computes(item: Call | ModuleCall) -> bool:
    """Return whether an item of a module call is a function, other than a guard."""
    return (
        isinstance(item, Call)
        and item.kind == "function"
        and not item.target.startswith("layergraph.assume")
    )


def _free_root_name(module_index: ModuleIndex) -> str:
    taken = {each.path for each in module_index}
    numbered = (f"{ROOT}_{number}" for number in itertools.count(1))
    return next(name for name in itertools.chain([ROOT], numbered) if name not in taken)
