"""The walk through one call of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from layergraph.control_flow import guards
from layergraph.errors import AssumptionError
from layergraph.ir import FUNCTION, INPUT, OUTPUT, STATE, Body, Implementation, Ir, Node, Ref
from layergraph.ir.graph import returned
from layergraph.ir.values import leaves, map_leaves
from layergraph_backends.backend import NO_HANDLER, Backend
from layergraph_backends.errors import Lack
from layergraph_backends.handlers import Handlers
from layergraph_backends.plain import UNKNOWN, computed, is_known, is_plain, of_torch
from layergraph_backends.repeats import Repeats
from layergraph_backends.step import Step
from layergraph_backends.views import View
from layergraph_backends.writes import Writes, changed_inputs
from layergraph_rewrite import Edit
from layergraph_rewrite.binding import bound

_GUARD = "layergraph.assume"
_LENGTH = "layergraph.assume_length"
_GRADIENTS = frozenset({"layergraph.set_grad_enabled"})
_CHANGED = "it changes its input {!r} in place, which is read later; let it compute a new tensor"
# torch accepts these aliases of its parameter names.
_NAMES_OF_NUMPY = {"axis": "dim", "keepdims": "keepdim"}
_NEW = "the new value"
_NO_PART = "it changes a part of {!r} in place, for which the target has one value"
_SETS = "it sets a tensor of the model for later calls, and the target keeps none"
_ONE_WAY = "it runs only if {} is {}, and the target computes no step under a condition"


class Model:
    """The model that a walk lowers, with the findings of the walk.

    Args:
        ir: the IR of one mode.
        module: the model that it describes.
        backend: the back end.
        handlers: the handlers of the target.
        metas: the description of each value by its path.

    Attributes:
        guards: the guards that the target does not check.
        repeats: the calls that stand for others like them; None: none does.
        noted: counts what was noted of single steps: lacks, guards, and handlers of third parties,
            which may look at the numbers of tensors.
    """

    def __init__(
        self,
        ir: Ir,
        module: nn.Module,
        backend: Backend,
        handlers: Handlers,
        metas: Mapping[tuple[str, ...], Any],
    ) -> None:
        self.ir = ir
        self.backend = backend
        self.handlers = handlers
        self.metas = metas
        self.layers = Edit(ir).layers
        self.guards: dict[str, None] = {}
        self._module = module
        self._tensors = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        self.repeats = Repeats(ir, metas, self._tensors) if backend.repeats and metas else None
        self.noted = 0
        self._lacks: dict[tuple[str, str], list[str]] = {}
        self._changed: dict[str, frozenset[str]] = {}
        self._said: dict[tuple[str, str], list[str]] = {}
        for guard in ir.guards:
            where = f" ({guard.where})" if guard.where else ""
            self._said.setdefault((guard.implementation, guard.node), []).append(guard.says + where)

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """The steps that the target does not support, each kind and reason once."""
        return tuple(
            Lack(places[0], kind, reason, len(places) - 1)
            for (kind, reason), places in self._lacks.items()
        )

    def lack(self, step: Step, reason: str) -> Any:
        """Record a step that the target does not support, and return its value."""
        if reason == NO_HANDLER:
            reason = self.backend.lacking(step)
        self.noted += 1
        places = self._lacks.setdefault((step.kind, reason), [])
        if step.where not in places:
            places.append(step.where)
        return UNKNOWN

    def guard(self, step: Step) -> None:
        """Record a guard that the walk cannot check."""
        self.noted += 1
        for text in self._said.get((step.graph, step.name), [step.kind]):
            self.guards[text] = None
            self.backend.guard(text, step)

    def changed_inputs(self, layer: Implementation) -> list[str]:
        """Return the inputs of a composite whose tensors it changes in place."""
        return sorted(changed_inputs(layer.name, self.layers, self._changed))

    def module_of(self, layer: Implementation) -> nn.Module:
        """Return the module that was built for a layer."""
        return self._module.get_submodule("" if layer.name == self.ir.root else layer.name)

    def tensor(self, key: str) -> Any:
        """Return the target's value for a parameter or buffer, or the mode of a module."""
        path, _, name = key.rpartition(".")
        if key not in self._tensors and name == "training":
            return self._module.get_submodule(path).training
        return self.backend.tensor(key, self._tensors[key].detach())


class Frame:
    """The walk through one call of a graph.

    Args:
        model: the model.
        owner: the name of the implementation that has the graph.
        path: the names of the nodes that make the call, from the root on.
        kept: the inputs whose new values the caller reads after the call.
    """

    def __init__(
        self, model: Model, owner: str, path: tuple[str, ...], kept: Sequence[str] = ()
    ) -> None:
        self._kept = kept
        self._model = model
        self._owner = owner
        self._path = path
        self._values: dict[str, Any] = {}

    def run(self, given: Mapping[str, Any]) -> Any:
        """Return the result of the graph.

        Args:
            given: the value of each input node.
        """
        graph = self._model.layers[self._owner].graphs[0]
        self._writes = Writes(graph, self._model.layers, self._meta, self._kept)
        result: Any = None
        for node in graph:
            if node.type == INPUT:
                self._values[node.name] = given[node.name]
            elif node.sets_state:
                self._values[node.name] = self._model.lack(self._step(node), _SETS)
            elif node.type == STATE:
                self._values[node.name] = self._model.tensor(node.implementation)
            elif node.type == OUTPUT:
                result = self._filled(returned(node.args or ()))
            else:
                step = self._step(node)
                self._values[node.name] = self._value(step)
                self._renew(step)
        return result

    def alone(self, node: Node, values: Mapping[str, Any]) -> Any:
        """Return the value of a node outside of any graph, for a model that is one layer."""
        self._values = dict(values)
        return self._value(self._step(node))

    def _step(self, node: Node) -> Step:
        layer = self._model.ir[node.implementation] if node.is_call else None
        meta = partial(self._filled, metas=True)
        kwargs = node.kwargs
        if kwargs and node.implementation.startswith("torch."):
            kwargs = {_NAMES_OF_NUMPY.get(name, name): each for name, each in kwargs.items()}
        return Step(
            path=(*self._path, node.name),
            graph=self._owner,
            node=node,
            layer=layer,
            module=None if layer is None else self._model.module_of(layer),
            args=self._filled(node.args or ()),
            kwargs=self._filled(kwargs),
            meta=self._meta(node.name),
            arg_metas=meta(node.args or ()),
            kwarg_metas=meta(kwargs),
            run=self._run_body,
            prefix="" if layer is None or layer.name == self._model.ir.root else f"{layer.name}.",
        )

    def _filled(self, value: Any, *, metas: bool = False) -> Any:
        def leaf(each: Any) -> Any:
            if type(each) is not Ref:
                return each
            return self._meta(each.node) if metas else self._values[each.node]

        return map_leaves(leaf, value)

    def _meta(self, name: str) -> Any:
        return self._model.metas.get((*self._path, name))

    def _value(self, step: Step) -> Any:
        model, function = self._model, step.kind
        inside = leaves(step.args, step.kwargs)
        if step.layer is None:
            if function in _GRADIENTS:
                return None  # a target computes no gradients
            if is_known(step.meta):
                return step.meta
            if function.startswith(_GUARD):
                return self._guard(step)
            is_computed, value = computed(function, step.args, step.kwargs)
            if is_computed:
                return value
        if any(leaf is UNKNOWN for leaf in inside):
            return self._unknown(step)
        if step.node.when is not None and not model.backend.computes_both_ways:
            condition, expected = step.node.when
            return model.lack(step, _ONE_WAY.format(condition.node, expected))
        if step.layer is not None and step.layer.nodes and not model.handlers.names(step):
            return self._composite(step, step.layer)
        answer = model.handlers.answer(step, model.backend)
        model.noted += not answer.is_builtin
        return model.lack(step, answer.reason) if answer.value is None else answer.value

    def _unknown(self, step: Step) -> Any:
        """Search a step that reads an unsupported value for further lacks."""
        if self._model.handlers.has(step):
            return UNKNOWN
        if step.layer is None or not step.layer.nodes:
            return self._model.lack(step, NO_HANDLER)
        self._inside(step, step.layer, *step.args, **step.kwargs)
        return UNKNOWN

    def _inside(self, step: Step, layer: Implementation, *args: Any, **kwargs: Any) -> Any:
        """Walk through the graph of a composite."""
        return self._walked(step, layer, (), *args, **kwargs)[0]

    def _walked(
        self, step: Step, layer: Implementation, names: Sequence[str], *args: Any, **kwargs: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the result of the graph of a composite, and the last values of some inputs."""
        frame = Frame(self._model, layer.name, step.path, names)
        result = frame.run(bound(_inputs(layer), args, kwargs))
        return result, tuple(frame._values[name] for name in names)

    def _composite(self, step: Step, layer: Implementation) -> Any:
        given = bound(_inputs(layer), step.node.args or (), step.node.kwargs)
        changed = {
            name: given[name]
            for name in self._model.changed_inputs(layer)
            if self._writes.is_read_after(given[name], step.node)
        }
        if not changed:
            return self._unchanged(step, layer)
        for name, value in changed.items():
            if type(value) is not Ref:
                return self._model.lack(step, _CHANGED.format(name))
        walked = partial(self._walked, step, layer, [*changed])
        found = self._model.backend.composite(step, walked)
        if found is UNKNOWN:
            return UNKNOWN
        result, values = found
        for ref, value in zip(changed.values(), values, strict=True):
            self._write(step, ref.node, value)
        return result

    def _unchanged(self, step: Step, layer: Implementation) -> Any:
        """Return the value of a call of a composite that changes nothing that is read later."""
        model, repeats = self._model, self._model.repeats
        key = None if repeats is None else repeats.key(step, layer)
        before = model.noted
        found = None if repeats is None else repeats.first(key, step, layer)
        value = None if found is None else model.backend.repeated(step, *found)
        if value is not None:
            return value
        value = model.backend.composite(step, partial(self._inside, step, layer))
        if repeats is not None and model.noted == before:
            repeats.keep(key, step)
        return value

    def _run_body(self, body: Body, *args: Any, **kwargs: Any) -> Any:
        """Walk through the graph of a body, which reads the tensors of this graph's module."""
        implementation = self._model.ir[body.implementation]
        frame = Frame(self._model, implementation.name, (*self._path, implementation.name))
        return frame.run(bound(_inputs(implementation), args, kwargs))

    def _guard(self, step: Step) -> Any:
        """Check a guard now if its values are known; otherwise pass it to the back end."""
        args, kwargs = step.args, step.kwargs
        if step.kind == _LENGTH and isinstance(args[0], tuple | list | dict):
            args = (tuple(range(len(args[0]))), *args[1:])  # its parts may be values of the target
        if is_plain((args, kwargs)):
            args, kwargs = of_torch((args, kwargs))
            try:
                getattr(guards, step.kind.rpartition(".")[2])(*args, **kwargs)
            except AssumptionError as error:
                return self._model.lack(step, str(error))
            return None
        self._model.guard(step)
        return None

    def _renew(self, step: Step) -> None:
        """Bind the names of a tensor that a step changed in place to its new value."""
        if step.layer is None or not step.layer.nodes:  # else see _composite
            for changed in self._writes.of(step.node):
                self._write(step, changed, self._values[step.name])

    def _write(self, step: Step, changed: str, value: Any) -> None:
        """Bind a changed tensor, and all its aliases, to new values."""
        change = self._writes.change(step.node, changed)
        if change.problem:
            self._model.lack(step, change.problem)
            value = UNKNOWN
        if step.node.when is not None:
            value = self._if_it_runs(step.node.when, changed, value)
        self._values[changed] = value
        views = self._writes.views
        for name, parent in pairwise(change.up):
            view = views.of(name)
            assert view is not None  # noqa: S101
            self._values[parent] = self._with_part(step, view, self._values[name])
        for name in change.again:
            view = views.of(name)
            assert view is not None  # noqa: S101
            is_same = view.put is None
            self._values[name] = (
                self._values[view.parent] if is_same else self._said(self._writes.node(name))
            )

    def _if_it_runs(self, when: tuple[Ref, bool], changed: str, value: Any) -> Any:
        """Return a new value under a condition, and the old one otherwise."""
        condition, expected = when
        self._values[_NEW] = value
        ways = Ref(_NEW), Ref(changed)
        return self._said(_choice(changed, condition, *(ways if expected else ways[::-1])))

    def _with_part(self, step: Step, view: View, part: Any) -> Any:
        """Return the new value of a whole with a changed part."""
        if isinstance(view.put, Node):
            return self._said(view.put)
        if view.put is None:
            return part
        whole = self._values[view.parent]
        if whole is UNKNOWN or not isinstance(whole, tuple | list):
            return self._model.lack(step, _NO_PART.format(view.parent))
        listed = list(whole)
        listed[view.put] = part
        return tuple(listed)

    def _said(self, node: Node) -> Any:
        """Return the value of a helper node that the graph does not contain."""
        step = self._step(node)
        is_known = all(leaf is not UNKNOWN for leaf in leaves(step.args, step.kwargs))
        return self._value(step) if is_known else UNKNOWN


def _choice(name: str, condition: Ref, if_true: Ref, if_false: Ref) -> Node:
    return Node(name, FUNCTION, "layergraph.choose", (condition, if_true, if_false))


def _inputs(implementation: Implementation) -> list[Node]:
    return [node for node in implementation.nodes.values() if node.type == INPUT]
