"""From a PyTorch module to its IR."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from layergraph.elsewhere import imported
from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph.plugins import Hooks, Plugin, chosen_plugins
from layergraph.registration import Registry
from layergraph.torch2ir.local_handlers import LocalHandlers

if TYPE_CHECKING:
    from layergraph.capturing import Modes, Values
    from layergraph_tools.explain.chain import Explanation


class Torch2Ir(Registry):
    """Converts modules to IR, by the handlers of the installed plugins and its own.

    A handler that is registered here takes a module and returns a dict of attributes, an
    :class:`~layergraph.Implementation`, or None for "not mine". It is registered for a class, which
    has to be the module's exact class, or for the name of one: as it is (``"CustomLinear"``), in
    lower case (``"customlinear"``), or with underscores (``"custom_linear"``). Attributes may name
    the ``type``; else it is that name, or, where the handler is registered for a class, the class's
    name in lower case.

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
        super().__init__(takes_classes=True)
        self._own = LocalHandlers(self)
        self.hooks = Hooks(chosen_plugins(plugins, disable), self._own)

    def convert(
        self,
        model: nn.Module,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        values: Values = "refuse",
        modes: Modes = "both",
    ) -> Ir:
        """Turn a model into its IR.

        With example inputs the model runs once, and what it does is recorded. Without, it is traced
        on symbols, which serves models whose code does not look at its inputs.

        Args:
            model: the model, in either mode. It is left as it was.
            args: the positional arguments of an example call, as a tuple.
            kwargs: its arguments by name. What is not a tensor is fixed at what it is here, as is
                what is left at its default.
            values: what to do where the model decides by a number in a tensor: ``"refuse"``, or
                ``"assume"`` that it is the same for all inputs, which the rebuilt model checks.
            modes: what the IR is to hold where the model's code asks whether it is training:
                ``"both"`` modes, or its ``"own"``, the one that it is in, which is quicker and
                which the rebuilt model is then held to.

        Returns:
            The IR. It holds no parameters and no persistent buffers: those are in the model's state
            dict.

        Raises:
            CaptureError: the model computes something that a graph cannot hold, or decides by what
                only inputs would tell.
            PluginError: a handler failed, or broke its contract.
        """
        # What captures is imported when it is first needed: making a converter is quick.
        from layergraph.torch2ir.pipeline import convert
        from layergraph.torch2ir.tracing.tracer import ONE_AT_A_TIME
        from layergraph.undo import undone

        finishing: list[Callable[[], None]] = []
        given = (self.hooks, model, args, kwargs, values, modes, finishing)
        # Another capture of the same model may have changed its modes for a while.
        with ONE_AT_A_TIME:
            try:
                return undone(partial(gc_paused()(convert), *given))
            finally:
                for finish in finishing:
                    finish()

    def explain(self, subject: nn.Module | type[nn.Module]) -> Explanation:
        """Who answers for a module, in the order in which they are asked, and who declines and why.

        Args:
            subject: a module, of which all is known; or a class. A handler is asked about a class
                by an instance that no constructor has made: it answers if it takes that up.

        Raises:
            PluginError: the subject is neither.
        """
        from layergraph.torch2ir.indexing.answers import answer_of

        explained = imported("layergraph_tools.explain.modules", "explained")
        answer = partial(answer_of, self.hooks, path="")
        explanation: Explanation = explained(subject, self.hooks, self._own, answer)
        return explanation


def get_default_converter(disable: Collection[str] = ()) -> Torch2Ir:
    """A new converter with the handlers of all installed plugins, but for those disabled."""
    return Torch2Ir(disable=disable)
