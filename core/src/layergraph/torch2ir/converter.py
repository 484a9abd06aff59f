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
    from layergraph.capturing import Example, Modes, Values
    from layergraph_tools.explain.chain import Explanation


class Torch2Ir(Registry):
    """A converter from modules to IR, with the handlers of plugins and handlers of its own.

    Register a handler for a class, or for its name: as it is (``"CustomLinear"``), in lower case
    (``"customlinear"``), or with underscores (``"custom_linear"``). The handler takes a module of
    exactly this class. It returns a dict of attributes, an :class:`~layergraph.Implementation`, or
    None if it does not know the module. The dict may contain the ``type``; without one, the type is
    the registered name, or the name of the registered class in lower case.

    Args:
        plugins: the plugins to ask; None: all installed plugins.
        disable: the distributions whose plugins not to ask; ``*`` for all third-party ones.

    Raises:
        PluginError: no plugin of a disabled name is there, or an installed plugin cannot be used
            and ``LAYERGRAPH_STRICT`` is set.

    Example:
        >>> import torch
        >>> from layergraph.torch2ir import Torch2Ir
        >>> converter = Torch2Ir()
        >>> @converter.register_override(torch.nn.ReLU)
        ... def relu(module):
        ...     return {"inplace": module.inplace}
        >>> print(converter.convert(torch.nn.ReLU()))
        root: relu(inplace=False)
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
        examples: Sequence[Example] | None = None,
        values: Values = "both",
        modes: Modes = "both",
    ) -> Ir:
        """Turn a model into its IR; the arguments are those of :func:`layergraph.to_ir`."""
        # Imported on first use, so that making a converter is quick.
        from layergraph.capturing import example_calls
        from layergraph.torch2ir.one_at_a_time import one_at_a_time
        from layergraph.torch2ir.pipeline import convert
        from layergraph.undo import undone

        finishing: list[Callable[[], None]] = []
        calls = example_calls(args, kwargs, examples)
        given = (self.hooks, model, calls, values, modes, finishing)

        def capture() -> Ir:
            try:
                return undone(partial(gc_paused()(convert), *given))
            finally:
                for finish in finishing:
                    finish()

        return one_at_a_time(capture)

    def explain(self, subject: nn.Module | type[nn.Module]) -> Explanation:
        """Return which handler converts a module, and the answers of all others, in order.

        Args:
            subject: a module or a class of modules. For a class, each handler gets an instance
                without attributes, made without the constructor.

        Raises:
            PluginError: the subject is neither.
            MissingDistributionError: ``layergraph-tools`` is not installed.
        """
        from layergraph.torch2ir.indexing.answers import answer_of

        explained = imported("layergraph_tools.explain.modules", "explained")
        answer = partial(answer_of, self.hooks, path="")
        explanation: Explanation = explained(subject, self.hooks, self._own, answer)
        return explanation


def get_default_converter(disable: Collection[str] = ()) -> Torch2Ir:
    """Return a new converter with the handlers of the installed plugins.

    Args:
        disable: as for :class:`Torch2Ir`.

    Example:
        >>> import torch
        >>> from layergraph.torch2ir import get_default_converter
        >>> print(get_default_converter(disable=["*"]).convert(torch.nn.ReLU()))
        root: relu()
    """
    return Torch2Ir(disable=disable)
