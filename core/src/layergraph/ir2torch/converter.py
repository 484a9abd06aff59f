"""From an IR to a PyTorch module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.collection import without_collection
from layergraph.errors import BuildError, first_line
from layergraph.ir import Implementation, Ir, check
from layergraph.ir2torch.own import Own
from layergraph.plugins import Hooks, Plugin, chosen_plugins
from layergraph.registration import Registry
from layergraph.undo import undoes

if TYPE_CHECKING:  # What builds is imported when it is first needed.
    from layergraph.ir2torch.build import Builder
    from layergraph.ir2torch.load import Key
    from layergraph.ir2torch.skeleton import Skeleton
    from layergraph.ir2torch.surroundings import Retrying
    from layergraph.plugins.explanation import Explanation

Device = torch.device | str | int | None


class Ir2Torch(Registry):
    """Converts IR to modules, by the handlers of the installed plugins and its own.

    A handler that is registered here, for the name of a type, takes an
    :class:`~layergraph.Implementation` and, if it has a second parameter without a default or one
    named ``children``, the built children by name; it returns a module, or None for "not mine".

    Args:
        plugins: the plugins to ask; None for all that are installed.
        disable: the distributions whose plugins are not asked; ``*`` for all third-party ones.

    Raises:
        PluginError: nothing is there to be disabled under such a name, or an installed plugin
            cannot be used and ``LAYERGRAPH_STRICT`` is set.
    """

    def __init__(
        self, plugins: tuple[Plugin, ...] | None = None, *, disable: Collection[str] = ()
    ) -> None:
        super().__init__(takes_classes=False)
        self._own = Own(self)
        self.hooks = Hooks(chosen_plugins(plugins, disable), self._own)

    @undoes
    def convert(
        self,
        ir: Ir | Mapping[str, Mapping[str, Any]],
        state_dict: Mapping[str, torch.Tensor] | None = None,
        device: Device = None,
    ) -> nn.Module:
        """Build the model that an IR describes.

        Args:
            ir: the IR, or its dict form.
            state_dict: the weights, copied into the model, under the keys of the original. A tensor
                with several keys needs only one of them. Weights are not initialised then, but for
                what reads them while a layer is made. None: weights are as the constructors of the
                layers make them, and zero where no constructor does.
            device: where the parameters and buffers are to be; None for torch's default. On
                ``"meta"`` none of them takes memory, and a state dict is only checked against them.
                Such a model runs on inputs of that device. As soon as it has all its weights by its
                own ``load_state_dict(…, assign=True)``, or by that after ``to_empty(…)``, it also
                has what no state dict has: constants, and buffers that do not persist.

        Returns:
            A module with the original's layers in the original's hierarchy: compositions as
            :class:`torch.fx.GraphModule`, everything else of its own class. Its ``state_dict()``
            has the original's keys.

        Raises:
            InvalidIrError: the IR breaks a rule.
            BuildError: a type has no handler, a handler refused the attributes, or there is no such
                device.
            PluginError: a handler broke its contract.
            StateError: the state dict does not fit.
        """
        from layergraph.ir2torch.load import keep_alike, load

        checked = ir if isinstance(ir, Ir) else Ir.from_dict(ir)
        check(checked)
        builder, model, listed = self._built(
            checked, device_of(device), weights_follow=state_dict is not None
        )
        if state_dict is not None:
            builder.fills.forget(tensor for _, tensor, persists in listed if persists)
        # Before the weights are loaded: they may share memory with what is filled here.
        builder.fills.run_all()
        if state_dict is not None:
            load(listed, state_dict)
        keep_alike(model, listed, builder.values)
        return model

    def explain(self, subject: str | Implementation) -> Explanation:
        """Who answers for a type, in the order in which they are asked, and who declines and why.

        Args:
            subject: an implementation, or the name of a type. A handler is asked about a type by an
                implementation without attributes: it answers if it takes that up.
        """
        from layergraph.ir2torch.explained import explained

        return explained(subject, self.hooks, self._own)

    def skeleton(self, ir: Ir, around: Retrying | None = None) -> Skeleton:
        """Build the model that an IR describes on the meta device, for tensors that are there.

        Args:
            ir: the IR; it must have been checked.
            around: what the handlers run in.

        Raises:
            BuildError, PluginError: as for :meth:`convert`.
        """
        from layergraph.ir2torch.skeleton import Skeleton

        meta = torch.device("meta")
        builder, model, listed = self._built(ir, meta, weights_follow=True, around=around)
        return Skeleton(ir, model, builder.modules, listed, builder.values)

    @undoes
    def tensors(self, ir: Ir) -> list[Key]:
        """The tensors of the model that an IR describes, on the meta device; nothing runs it.

        Of layers that differ in their names alone, one is made.

        Args:
            ir: the IR; it must have been checked.

        Raises:
            BuildError, PluginError: as for :meth:`convert`.
        """
        meta = torch.device("meta")
        return self._built(ir, meta, weights_follow=True, graphs=False)[2]

    @without_collection()
    def _built(
        self,
        ir: Ir,
        device: torch.device,
        *,
        weights_follow: bool,
        around: Retrying | None = None,
        graphs: bool = True,
    ) -> tuple[Builder, nn.Module, list[Key]]:
        from layergraph.functions import Targets
        from layergraph.ir2torch.build import Builder
        from layergraph.ir2torch.load import keys

        functions = Targets(self.hooks.named_functions())
        builder = Builder(
            ir,
            self.hooks,
            functions,
            device,
            weights_follow=weights_follow,
            around=around,
            graphs=graphs,
        )
        model = builder.build()
        return builder, model, list(keys(ir, builder.modules))


def device_of(named: Device) -> torch.device:
    """The device that is meant; None means torch's default.

    Raises:
        BuildError: there is no such device.
    """
    try:
        # Made there, a tensor also tells the number of the device that is meant.
        device = None if named is None else torch.device(named)
        return torch.empty(0, device=device).device
    except Exception as error:
        raise BuildError(
            f"nothing can be built on {named!r}: {type(error).__name__}: {first_line(error)}; "
            "name a device that torch has here"
        ) from error


def get_default_converter(disable: Collection[str] = ()) -> Ir2Torch:
    """A new converter with the handlers of all installed plugins, but for those disabled."""
    return Ir2Torch(disable=disable)
