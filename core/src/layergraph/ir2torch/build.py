"""From an IR to modules: children first, each by its handler or from its graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from layergraph.errors import BuildError, Place, PluginError, UnknownTypeError
from layergraph.functions.names import Targets
from layergraph.ir import MODULE, Implementation, Ir
from layergraph.ir.submodules import post_order, pre_order
from layergraph.ir2torch.build_context import layer_of, refusals
from layergraph.ir2torch.composite_builder import CompositeBuilder
from layergraph.ir2torch.deferred_init import DeferredInit
from layergraph.ir2torch.holder import Holder
from layergraph.ir2torch.layer_builder import LayerBuilder
from layergraph.ir2torch.paths import descend, find_module
from layergraph.ir2torch.submodules import place
from layergraph.ir2torch.tensor_builder import TensorBuilder
from layergraph.plugins import Hooks
from layergraph.tensors.state import with_tensors_like


class Builder:
    """Builds the model that a checked IR describes, with weights as the constructors make them.

    Args:
        ir: the IR; it must have been checked.
        hooks: the handlers.
        functions: the functions that nodes may name.
        device: the device of the tensors.
        weights_follow: whether a state dict is about to overwrite the weights. Then the build
            defers the initial weights: see ``fills``.
        fills: what defers the initial weights; None: a new :class:`DeferredInit`.
        graphs: whether to compile graphs; if not, compositions only hold their members.

    Attributes:
        modules: the modules that have been built, by implementation.
        fills: the deferred initial weights. The caller has to run those that no state dict
            overwrites.
        values: on the meta device, the tensors that have values, and these values on the CPU.
    """

    def __init__(
        self,
        ir: Ir,
        hooks: Hooks,
        functions: Targets,
        device: torch.device,
        *,
        weights_follow: bool,
        fills: DeferredInit | None = None,
        graphs: bool = True,
    ) -> None:
        self._ir = ir
        self.fills = DeferredInit() if fills is None else fills
        self._tensors = TensorBuilder(
            device, hooks.tensor_kinds, self.fills, weights_follow=weights_follow
        )
        self.values = self._tensors.values
        puts_off = weights_follow or device.type == "meta"
        self._layers = LayerBuilder(hooks, device, self.fills if puts_off else None)
        self._composites = CompositeBuilder(ir, functions) if graphs else None
        self._made: dict[object, nn.Module] = {}
        self.modules: dict[str, nn.Module] = {}

    def build(self) -> nn.Module:
        """Build all modules, and return the root.

        Raises:
            BuildError: a type has no handler, or an attribute, function or tensor is wrong.
            PluginError: a handler broke its contract.
        """
        for name in post_order(self._ir):
            self.modules[name] = self._module(self._ir[name])
        self._tensors.tie(self._ir, self.modules)
        self._set_modes()
        return self.modules[self._ir.root]

    def _module(self, implementation: Implementation) -> nn.Module:
        layer = layer_of(implementation) if self._composites is None else None
        if layer is None:
            return self._new_module(implementation)
        # If no graph will run, make equal layers once, and copy only their tensors.
        if layer in self._made:
            return with_tensors_like(self._made[layer])
        return self._made.setdefault(layer, self._new_module(implementation))

    def _new_module(self, implementation: Implementation) -> nn.Module:
        where = Place("implementation", implementation.name)
        children = {
            child: self.modules[target] for child, target in (implementation.children or {}).items()
        }
        module = self._layers.build(implementation, children, where)
        if module is not None:
            _check_children(module, children, where)
            self._tensors.bring(module, implementation, where)
        elif implementation.type == MODULE:
            module = Holder()
            for child, built in children.items():
                place(module, child, built, where)
        else:
            raise UnknownTypeError(self._layers.unhandled(implementation))
        for name, spec in implementation.tensors.items():
            with refusals(where.at("tensor", name)):
                self._tensors.apply(module, name, spec, where.at("tensor", name))
        if implementation.kept_modes:
            _keep_modes(module, implementation, where)
        if implementation.children is None:
            self._tensors.make_usual(module, implementation)
        if self._composites and implementation.type == MODULE and implementation.nodes:
            return self._composites.build(implementation, module)
        return module

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
