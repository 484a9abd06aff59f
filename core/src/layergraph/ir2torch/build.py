"""From an IR to modules: children first, each by its handler or from its graph."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from layergraph.errors import BuildError, LayergraphError, Place, PluginError, brief, first_line
from layergraph.functions import Targets
from layergraph.ir import MODULE, STATE, Graph, Implementation, Ir, Node, TensorSpec
from layergraph.ir.hierarchy import Ancestry, post_order, pre_order
from layergraph.ir.names import is_attribute_path
from layergraph.ir2torch.composite import Composite, Holder, descend, find, find_module, taken_names
from layergraph.ir2torch.fills import PutOffFills
from layergraph.ir2torch.graph import fx_graph
from layergraph.ir2torch.surroundings import OnDevice, Retrying, Surrounding, layer_of
from layergraph.ir2torch.tree import owner_of, place
from layergraph.plugins import HookFailure, Hooks, distribution_for
from layergraph.state import (
    all_tensors,
    dtype_of,
    from_spec,
    own_tensors,
    replace,
    restrided,
    usual_dtype,
    with_tensors_like,
)
from layergraph.torch_versions import NEWER_LAYERS, default_device, missing


class Builder:
    """Builds the model that a checked IR describes, with weights as the constructors make them.

    Args:
        ir: the IR; it must have been checked.
        hooks: who makes the layers.
        functions: what function nodes may run.
        device: where the tensors are to be.
        weights_follow: whether a state dict is about to overwrite the weights. Then they need not
            be initialised: see ``fills``.
        around: what handlers run in, besides.
        graphs: whether to make what runs, too; if not, modules only hold what they hold.

    Attributes:
        modules: by implementation, what has been built.
        fills: the initial weights that were put off. Those that no state dict overwrites have to be
            run in the end.
        values: on the meta device, the tensors that have values, and these on the CPU.
    """

    def __init__(
        self,
        ir: Ir,
        hooks: Hooks,
        functions: Targets,
        device: torch.device,
        *,
        weights_follow: bool,
        around: Retrying | None = None,
        graphs: bool = True,
    ) -> None:
        self._ir = ir
        self._hooks = hooks
        self._functions = functions
        self._device = device
        self._weights_follow = weights_follow
        self._around = around
        self._graphs = graphs
        self._ancestry = Ancestry.of(ir)
        self._compiled: dict[tuple[object, ...], Composite] = {}
        self._made: dict[object, nn.Module] = {}
        self._given: dict[int, tuple[Place, nn.Module]] = {}
        self._owners: dict[int, Place] = {}
        self.modules: dict[str, nn.Module] = {}
        self.fills = PutOffFills()
        self.values: list[tuple[torch.Tensor, torch.Tensor]] = []

    def build(self) -> nn.Module:
        """Build all of it, and give the model.

        Raises:
            BuildError: a type has no handler, or an attribute, function or tensor makes no sense.
            PluginError: a handler broke its contract.
        """
        for name in post_order(self._ir):
            self.modules[name] = self._module(self._ir[name])
        self._tie()
        self._set_modes()
        return self.modules[self._ir.root]

    # --- one module ---

    def _module(self, implementation: Implementation) -> nn.Module:
        layer = None if self._graphs else layer_of(implementation)
        if layer is None:
            return self._new_module(implementation)
        # Where nothing will run, one layer tells what tensors all have that are made alike.
        if layer in self._made:
            return with_tensors_like(self._made[layer])
        return self._made.setdefault(layer, self._new_module(implementation))

    def _new_module(self, implementation: Implementation) -> nn.Module:
        where = Place("implementation", implementation.name)
        children = {
            child: self.modules[target] for child, target in (implementation.children or {}).items()
        }
        module = self._handled(implementation, children, where)
        if module is not None:
            _check_children(module, children, where)
            self._bring(module, implementation, where)
        elif implementation.type == MODULE:
            module = Holder()
            for child, built in children.items():
                place(module, child, built, where)
        else:
            raise BuildError(self._unhandled(implementation))
        for name, spec in implementation.tensors.items():
            with _refusals(where.at("tensor", name)):
                self._apply(module, name, spec, where.at("tensor", name))
        if implementation.kept_modes:
            _keep_modes(module, implementation, where)
        if implementation.children is None:
            self._make_usual(module, implementation)
        if self._graphs and implementation.type == MODULE and implementation.nodes:
            return self._composite(implementation, module)
        return module

    def _handled(
        self, implementation: Implementation, children: Mapping[str, nn.Module], where: Place
    ) -> nn.Module | None:
        layer = layer_of(implementation)
        while True:
            try:
                module = self._asked(implementation, children, layer)
            except LayergraphError:
                raise
            except Exception as raised:
                error = raised.error if isinstance(raised, HookFailure) else raised
                if not isinstance(error, Exception):
                    raise PluginError(f"{where}: {raised}") from error
                if self._around is not None and not self._around.accepts(None):
                    continue
                said = implementation.data.items()
                attributes = ", ".join(f"{key}={brief(value)}" for key, value in said)
                raise BuildError(
                    f"{where}: the handler for {implementation.type!r} refused ({attributes}): "
                    f"{type(error).__name__}: {first_line(error)}; correct the attributes"
                ) from error
            if self._around is None or self._around.accepts(module):
                break
        if module is not None:
            others = (each for each in children.values() if each is module)
            self._given.setdefault(id(module), (where, module))
            if self._given[id(module)][0] is not where or next(others, None) is not None:
                raise PluginError(
                    f"{where}: its handler gave a module that is another implementation's; it must "
                    "make a new one each time that it is asked"
                )
        return module

    def _asked(
        self, implementation: Implementation, children: Mapping[str, nn.Module], layer: object
    ) -> nn.Module | None:
        entered = [each.around(layer) for each in self._surroundings]
        with ExitStack() as stack:
            for each in entered:
                if each is not None:
                    stack.enter_context(each)
            module: nn.Module | None = self._hooks.ask.ir_to_torch(
                implementation=implementation, children=children
            )
            return module

    @functools.cached_property
    def _surroundings(self) -> list[Surrounding]:
        on_meta = self._device.type == "meta"
        # On the meta device, what constructors compute besides parameters would be lost.
        device = torch.device("cpu") if on_meta else self._device
        return [
            *([OnDevice(device)] if device != default_device() else []),
            *([self._around] if self._around is not None else []),
            *([self.fills] if on_meta or self._weights_follow else []),
        ]

    def _unhandled(self, implementation: Implementation) -> str:
        kind = implementation.type
        asked = self._hooks.asked("ir_to_torch")
        of_torch = [cls for cls in vars(nn).values() if isinstance(cls, type)]
        homes = [cls.__module__ for cls in of_torch if cls.__name__.lower() == kind]
        wanted = distribution_for(homes[0]) if homes else None
        help_text = (
            f"pip install {wanted}"
            if wanted is not None
            else f"install the plugin that it came with, or register a handler: "
            f"Ir2Torch().register({kind!r}, …)"
        )
        lacking = missing(NEWER_LAYERS[kind]) if kind in NEWER_LAYERS else None
        help_text = help_text if lacking is None else f"{lacking}; install a newer one"
        return (
            f"implementation {implementation.name!r}: no handler for type {kind!r}; asked were "
            f"{', '.join(asked) or 'none'}; {help_text}"
        )

    def _composite(self, implementation: Implementation, members: nn.Module) -> nn.Module:
        where = Place("implementation", implementation.name)
        graphs = implementation.graphs
        aliases: dict[str, str] = {}
        targets = [
            {
                name: self._target(node, implementation, members, aliases)
                for name, node in graph.nodes.items()
                if node.type == STATE or node.is_call
            }
            for graph in graphs
        ]
        # Most models repeat a few blocks many times.
        key = (*map(_said, graphs, targets), *aliases.items())
        compiled = self._compiled.get(key)
        if compiled is None:
            with _refusals(where):
                made = [
                    fx_graph(graph, where, self._functions, located)
                    for graph, located in zip(graphs, targets, strict=True)
                ]
                by_alias = {alias: path for path, alias in aliases.items()}
                compiled = self._compiled[key] = Composite(members, by_alias, *made)
        # Whoever gets the module may edit it, so that the one to go by is not given away.
        return compiled.alike(members)

    def _target(
        self,
        node: Node,
        implementation: Implementation,
        members: nn.Module,
        aliases: dict[str, str],
    ) -> str:
        """The attribute path, or the alias of it, of what a node calls or reads."""
        owner, rest = node.implementation, None
        if node.type == STATE:
            owner, rest = owner_of(self._ir, node.implementation)
        path = self._ancestry.path(implementation.name, owner)
        full = ".".join(part for part in (path, rest) if part)
        if path is None or rest == "" or not _is_of_kind(find(members, full), node):
            where = Place("implementation", implementation.name).at("node", node.name)
            raise BuildError(
                f"{where}: there is no {node.implementation!r} in it; correct the name"
            )
        if is_attribute_path(full) and not taken_names() & set(full.split(".")):
            return full
        if full not in aliases:
            alias = f"_unspellable_{len(aliases)}"
            while find(members, alias) is not None:
                alias += "_"
            aliases[full] = alias
        return aliases[full]

    # --- tensors ---

    def _apply(self, module: nn.Module, name: str, spec: TensorSpec, where: Place) -> None:
        """Make a tensor as its spec says: a new one, or what the constructor made, changed."""
        *way, last = name.split(".")
        owner = descend(module, way)
        made = None if owner is None else getattr(owner, last, None)
        if isinstance(made, torch.Tensor):
            self._change(made, spec, where)
        elif spec.kind is None or owner is None:
            raise BuildError(f"{where}: the layer has no such tensor; correct the name")
        else:
            tensor = self._placed(from_spec(spec, where, self._device))
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(last, tensor)
            else:
                persistent = spec.kind == "buffer" and spec.persistent is not False
                owner.register_buffer(last, tensor, persistent=persistent)
                if spec.kind == "constant" and isinstance(owner, Holder):
                    owner._uncast |= {last}

    def _change(self, tensor: torch.Tensor, spec: TensorSpec, where: Place) -> None:
        if spec.shape is not None and spec.shape != tuple(tensor.shape):
            raise BuildError(
                f"{where}: its shape is {spec.shape}, but the layer makes {tuple(tensor.shape)}; "
                "correct one of them"
            )
        dtype = dtype_of(spec, where)
        if spec.requires_grad is False:
            tensor.requires_grad_(False)
        if dtype is not None and dtype is not tensor.dtype:
            self.fills.convert(tensor, dtype)
        if spec.stride is not None:
            self.fills.run([tensor])
            tensor.data = restrided(tensor.data, spec, where)
        if spec.value is not None:
            said = TensorSpec(
                kind="buffer", shape=tuple(tensor.shape), dtype=spec.dtype, value=spec.value
            )
            value = from_spec(said, where, self._device)
            self.fills.run([tensor])
            with torch.no_grad():
                tensor.copy_(value)
            if tensor.is_meta:
                self.values.append((tensor, value))

    def _make_usual(self, module: nn.Module, implementation: Implementation) -> None:
        """Give tensors of which no dtype is said the usual one, whatever torch's default is."""
        for name, tensor, _ in all_tensors(module):
            spec = implementation.tensors.get(name)
            usual = usual_dtype(tensor.dtype)
            if (spec is None or spec.dtype is None) and tensor.dtype is not usual:
                self.fills.convert(tensor, usual)

    def _bring(self, module: nn.Module, implementation: Implementation, where: Place) -> None:
        """Bring the tensors of a module to the device, where its handler did not make them there.

        Some functions, such as ``torch.from_numpy``, do not ask where tensors are to be made.
        """
        listed = list((all_tensors if implementation.children is None else own_tensors)(module))
        brought = {id(tensor): tensor for _, tensor, _ in listed if tensor.device != self._device}
        if brought:
            with _refusals(where):
                brought = {key: self._placed(tensor) for key, tensor in brought.items()}
        for name, tensor, _ in listed:
            mine = brought.get(id(tensor), tensor)
            if mine is not tensor:
                *way, last = name.split(".")
                replace(descend(module, way), last, mine)
            owner = self._owners.setdefault(id(mine), where)
            if owner is not where:
                raise PluginError(
                    f"{where}: its handler gave a module whose {name!r} is a tensor of {owner}; it "
                    "must make a new one each time that it is asked"
                )

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, on the device."""
        if tensor.device == self._device:
            return tensor
        is_parameter = isinstance(tensor, nn.Parameter)
        if self._device.type == "meta":
            self.fills.forget([tensor])
        self.fills.run([tensor])
        placed = tensor.detach().to(self._device)
        if placed.is_meta and not is_parameter:
            self.values.append((placed, tensor))
        return nn.Parameter(placed, tensor.requires_grad) if is_parameter else placed

    def _tie(self) -> None:
        for name, implementation in self._ir.items():
            for tensor, spec in implementation.tensors.items():
                if spec.tied is not None:
                    where = Place("implementation", name).at("tensor", tensor)
                    owner, rest = owner_of(self._ir, spec.tied)
                    first = self.modules.get(owner)
                    target = None if first is None else find(first, rest)
                    *way, last = tensor.split(".")
                    holder = descend(self.modules[name], way)
                    itself = (owner, rest) == (name, tensor)
                    if itself or not isinstance(target, torch.Tensor) or holder is None:
                        raise BuildError(
                            f"{where}: it is tied to {spec.tied!r}, which is no other tensor of "
                            "the model; correct the key"
                        )
                    members = (
                        holder._parameters if isinstance(target, nn.Parameter) else holder._buffers
                    )
                    mine = members.get(last)
                    if mine is None or mine.shape != target.shape:
                        raise BuildError(
                            f"{where}: it is of another kind or shape than {spec.tied!r}, to which "
                            "it is tied; correct one of them"
                        )
                    self.fills.forget([mine])
                    # Some modules keep their parameters in a list besides, and see to it here.
                    setattr(holder, last, target)

    def _set_modes(self) -> None:
        modes: dict[str | None, bool] = {None: True}
        for name, parent in pre_order(self._ir):
            said = self._ir[name].training
            training = modes[parent] if said is None else said
            modes[name] = training
            if self._ir[name].children is None:
                self.modules[name].train(training)
            else:
                self.modules[name].training = training


@contextmanager
def _refusals(where: Place) -> Iterator[None]:
    """Say where it was that torch refused to make something."""
    try:
        yield
    except LayergraphError:
        raise
    except Exception as error:
        raise BuildError(
            f"{where}: torch refuses to make it: {type(error).__name__}: {first_line(error)}; "
            "correct what is said of it"
        ) from error


def _keep_modes(module: nn.Module, implementation: Implementation, where: Place) -> None:
    for path in implementation.kept_modes:
        if find_module(module, path) is None:
            raise BuildError(f"{where}: it keeps a mode of {path!r}, which is no module in it")
    if isinstance(module, Holder):
        module._kept_modes = dict(implementation.kept_modes)
    elif type(module).train is nn.Module.train:
        raise BuildError(
            f"{where}: its train() keeps modes of modules in it, but the layer that the handler "
            f"for {implementation.type!r} makes has none of its own"
        )


def _check_children(module: nn.Module, children: Mapping[str, nn.Module], where: Place) -> None:
    for name, child in children.items():
        if descend(module, name.split(".")) is not child:
            raise PluginError(
                f"{where}: the handler left out the child {name!r}; it must register the children "
                "that it is given, under their names"
            )


def _said(graph: Graph, targets: Mapping[str, str]) -> tuple[object, ...]:
    """All that the code of a graph depends on, so that two of which it is equal have the same."""
    return (
        *graph.edges,
        *[
            (
                name,
                node.type,
                targets.get(name, node.implementation),
                # Their text tells 1 from True, and 0.0 from -0.0, which are equal.
                repr(node.args) if node.args else node.args,
                repr(node.kwargs) if node.kwargs else None,
            )
            for name, node in graph.nodes.items()
        ],
    )


def _is_of_kind(found: object, node: Node) -> bool:
    """Whether what a path leads to is what the node means: a module, or a tensor or a mode."""
    return isinstance(found, torch.Tensor | bool if node.type == STATE else nn.Module)
