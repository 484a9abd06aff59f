"""The converter from an IR to a PyTorch module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.elsewhere import imported
from layergraph.errors import BuildError, first_line
from layergraph.gc_pause import gc_paused
from layergraph.ir import Implementation, Ir, check
from layergraph.ir2torch.local_handlers import LocalHandlers
from layergraph.plugins import Hooks, Plugin, chosen_plugins
from layergraph.registration import Registry
from layergraph.undo import undoes

if TYPE_CHECKING:  # The build is imported on first use.
    from layergraph.ir2torch.build import Builder
    from layergraph.ir2torch.deferred_init import DeferredInit
    from layergraph.ir2torch.load import Key
    from layergraph.ir2torch.meta_model import MetaModel
    from layergraph_tools.explain.chain import Explanation

Device = torch.device | str | int | None


class Ir2Torch(Registry):
    """A converter from IR to modules, with the handlers of plugins and handlers of its own.

    Register a handler for the name of a type. It takes an :class:`~layergraph.Implementation`. If
    it has a second parameter without a default, or one named ``children``, it also takes the built
    children by name. It returns a module, or None if it does not know the implementation.

    Args:
        plugins: the plugins to ask; None: all installed plugins.
        disable: the distributions whose plugins not to ask; ``*`` for all third-party ones.

    Raises:
        PluginError: no plugin of a disabled name is there, or an installed plugin cannot be used
            and ``LAYERGRAPH_STRICT`` is set.

    Example:
        >>> import torch
        >>> from layergraph.ir2torch import Ir2Torch
        >>> converter = Ir2Torch()
        >>> @converter.register_override("relu")
        ... def relu(implementation):
        ...     return torch.nn.LeakyReLU()
        >>> converter.convert({"root": {"name": "root", "type": "relu"}})
        LeakyReLU(negative_slope=0.01)
    """

    def __init__(
        self, plugins: tuple[Plugin, ...] | None = None, *, disable: Collection[str] = ()
    ) -> None:
        super().__init__(takes_classes=False)
        self._own = LocalHandlers(self)
        self.hooks = Hooks(chosen_plugins(plugins, disable), self._own)

    @undoes
    def convert(
        self,
        ir: Ir | Mapping[str, Mapping[str, Any]],
        state_dict: Mapping[str, torch.Tensor] | None = None,
        device: Device = None,
    ) -> nn.Module:
        """Build the model that an IR describes: see :func:`layergraph.to_torch`."""
        from layergraph.ir2torch.load import keep_alike, keys, load
        from layergraph.ir2torch.wrapper_keys import under_plain_keys

        checked = ir if isinstance(ir, Ir) else Ir.from_dict(ir)
        check(checked)
        target = device_of(device)
        builder, model, listed = self._built(checked, target, weights_follow=state_dict is not None)
        if state_dict is not None:
            builder.fills.forget(tensor for _, tensor, persists in listed if persists)
        # Before loading, because a weight may share memory with a tensor that is filled here.
        builder.fills.run_all()
        if state_dict is not None:
            given = under_plain_keys(listed, state_dict)
            if load(model, listed, given, self.hooks.tensor_kinds, target):
                listed = list(keys(checked, builder.modules))
        keep_alike(model, listed, builder.values)
        return model

    def explain(self, subject: str | Implementation) -> Explanation:
        """Return which handler builds a type, and the answers of all others, in order.

        Args:
            subject: an implementation, or the name of a type. For a name, each handler gets an
                implementation without attributes.

        Raises:
            MissingDistributionError: ``layergraph-tools`` is not installed.
        """
        explained = imported("layergraph_tools.explain.types", "explained")
        explanation: Explanation = explained(subject, self.hooks, self._own)
        return explanation

    def meta_model(self, ir: Ir, fills: DeferredInit | None = None) -> MetaModel:
        """Build the model that an IR describes on the meta device, to put existing tensors in.

        Args:
            ir: a checked IR.
            fills: defers the initial weights, and may limit the tensors that handlers make.

        Raises:
            BuildError, PluginError: as for :meth:`convert`.
        """
        from layergraph.ir2torch.meta_model import MetaModel

        meta = torch.device("meta")
        builder, model, listed = self._built(ir, meta, weights_follow=True, fills=fills)
        return MetaModel(
            ir, model, builder.modules, listed, builder.values, self.hooks.tensor_kinds
        )

    @undoes
    def tensors(self, ir: Ir) -> list[Key]:
        """Return the tensors of the model that an IR describes, on the meta device.

        No graph is built. Layers that differ only in their names are made once.

        Args:
            ir: a checked IR.

        Raises:
            BuildError, PluginError: as for :meth:`convert`.
        """
        meta = torch.device("meta")
        return self._built(ir, meta, weights_follow=True, graphs=False)[2]

    @gc_paused()
    def _built(
        self,
        ir: Ir,
        device: torch.device,
        *,
        weights_follow: bool,
        fills: DeferredInit | None = None,
        graphs: bool = True,
    ) -> tuple[Builder, nn.Module, list[Key]]:
        from layergraph.functions.names import Targets
        from layergraph.ir2torch.build import Builder
        from layergraph.ir2torch.load import keys

        functions = Targets(self.hooks.named_functions())
        builder = Builder(
            ir,
            self.hooks,
            functions,
            device,
            weights_follow=weights_follow,
            fills=fills,
            graphs=graphs,
        )
        model = builder.build()
        return builder, model, list(keys(ir, builder.modules))


def device_of(named: Device) -> torch.device:
    """Return the device of a name; for None, torch's default.

    Raises:
        BuildError: torch has no such device.
    """
    try:
        # A tensor on "cuda" has the device "cuda:0": it adds the number.
        device = None if named is None else torch.device(named)
        return torch.empty(0, device=device).device
    except Exception as error:
        raise BuildError(
            f"nothing can be built on {named!r}: {type(error).__name__}: {first_line(error)}; "
            "name a device that torch has here"
        ) from error


def get_default_converter(disable: Collection[str] = ()) -> Ir2Torch:
    """Return a new converter with the handlers of the installed plugins.

    Args:
        disable: as for :class:`Ir2Torch`.

    Example:
        >>> from layergraph.ir2torch import get_default_converter
        >>> converter = get_default_converter(disable=["*"])
        >>> converter.convert({"root": {"name": "root", "type": "relu"}})
        ReLU()
    """
    return Ir2Torch(disable=disable)
