"""The hooks of layergraph. Their docstrings are the contract.

A plugin is a module with functions of these names, marked with :data:`hookimpl`, and named in its
distribution's entry points under the group ``layergraph``. A hook implementation takes any of the
hook's parameters, by name. :mod:`layergraph.plugins` lists the order in which they are asked. A
handler that answers None can say why: ``return layergraph.decline("its weight is pruned")``.

layergraph checks each answer. An answer of another type than the hook's, a list that does not end,
and whatever an implementation raises become one PluginError, which names distribution and hook;
SystemExit and other exceptions that are no Exception too. Only KeyboardInterrupt, and errors of
layergraph that an implementation raises on purpose, are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from layergraph.ir import Implementation

if TYPE_CHECKING:
    from torch import nn

    from layergraph.capturing import Capturer, CaptureRequest
    from layergraph.formats import Format
    from layergraph.layers import Layer

PROJECT = "layergraph"
VERSION = 1
"""The version of the hooks: another one, where an implementation for this one would not do.

A plugin says which one it was written for by ``layergraph_hooks = 1``; one that says nothing is
taken to be written for this one.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the hook of the same name."""


@hookspec(firstresult=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Say what a module is, without looking at what is called around it.

    Asked once for each module of a model that is converted, from the outside in, unless the module
    has forward hooks or a ``forward`` of its own: then it is not the layer that its class says.

    Args:
        module: the module, as it stands in the model. It must not be changed or called.

    Returns:
        None: not mine; the next handler is asked, and if none answers, the module is traced
        through.

        An :class:`~layergraph.Implementation` with ``type`` and ``data``: the module is that layer,
        whole, whatever is inside it. ``data`` holds plain values. Only a handler that knows the
        exact class may say so: a subclass may compute something else.

        An :class:`~layergraph.Implementation` whose ``children`` are ``{}``: the module is a
        container. It is traced through and its children are captured; ``type`` and ``data`` are
        kept if the container and its children are called with plain values, one after another, as
        their classes would be. Otherwise its graph says what it does, and its type is ``module``.

        The first answer that is not None stands.
    """


@hookspec(firstresult=True)
def ir_to_torch(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> nn.Module | None:
    """Make the module that an implementation describes.

    Asked once for each implementation, children before their parents. Dtypes, frozen parameters,
    ties, modes and weights are the core's affair, as is the graph of type ``module``.

    Args:
        implementation: with ``name``, ``type`` and ``data``; a container also has its graph.
        children: the built children of a container by name, in order; empty for a leaf.

    Returns:
        None: not mine; the next handler is asked, and if none answers, building stops with an
        error that names the type.

        A module, new at each call: one module for two implementations, or a child in the place of
        its parent, is refused, because it would tie their weights. A container's module holds the
        given children, under their names, and runs what its graph says: a handler refuses a graph,
        edited or written by hand, that its class would not run. It raises an error of
        :mod:`layergraph.errors` for that, or declines.

        The first answer that is not None stands.
    """


@hookspec
def functions() -> Collection[str]:  # type: ignore[empty-body]
    """Name functions, beyond torch's own, that may be nodes of a graph.

    Asked once for each converter. A named function is not traced through: it becomes one node. So
    it must be pure, and the plugin is needed to rebuild the model. The Python module that defines
    it is imported when a model with such a node is built, not before.

    Returns:
        Full names, of the module that defines the function and of its global there
        (``"torchvision.models.swin_transformer.shifted_window_attention"``). A custom operation is
        named by the function that ``torch.library.custom_op`` made, or as
        ``"torch.ops.acme.shift"`` or ``"torch.ops.acme.shift.default"``; the model may call it by
        any of these. Under the last two, the plugin imports what registers it. One that changes
        its arguments stays unnamed.
        Names of torch's own functions keep their meaning.
    """


@hookspec
def layers() -> Iterable[Layer]:  # type: ignore[empty-body]
    """List layers that their constructor arguments describe: one row for each class.

    Asked once, when the plugin is loaded. For a class that a row is for, and for the type that the
    row gives it, the core answers ``torch_to_ir`` and ``ir_to_torch`` in the plugin's stead, where
    the plugin stands: the class is kept whole, as a leaf, with its own arguments. A class of the
    plugin's own needs no row if it is decorated with :func:`layergraph.layer`.

    Returns:
        Rows, :class:`layergraph.layers.Layer`, no two for one class or one type.
    """


@hookspec(firstresult=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Give inputs to capture a model with, as small as the model takes them.

    Asked by :func:`layergraph.example_inputs`.

    Args:
        model: the model that is to be captured. It must not be changed or run.

    Returns:
        None: its class is not known; the next plugin is asked.

        The positional arguments of a call, and its arguments by name. Tensors are where the
        parameters of the model are.

        The first answer that is not None stands.
    """


@hookspec(firstresult=True)
def capture(request: CaptureRequest) -> Capturer | None:
    """Capture a model: record which functions and layers it calls.

    Asked once for each model that is converted, when its modules are known.

    Args:
        request: the model, the answers of the handlers for its modules, and the example inputs, if
            there are any. The model must be left as it is.

    Returns:
        None: not captured by this plugin; the next plugin is asked. If none answers, the core
        traces a model without example inputs on symbols, and refuses one with example inputs.

        A :class:`~layergraph.capturing.Capturer`: its tracers record the calls.

        The first answer that is not None stands.
    """


@hookspec
def commands() -> Iterable[Callable[..., int | None]]:  # type: ignore[empty-body]
    """Give subcommands of the command ``layergraph``: one function for each.

    The command line (``layergraph-cli``) asks each time it runs. To start without torch, it loads
    only those plugins whose source, in the module that the entry point names, contains the word
    ``commands``. If a plugin fails here, a warning names it, and its commands are skipped; those of
    other plugins work.

    Returns:
        Functions. The function ``new_plugin`` is the subcommand ``new-plugin``; its name starts
        with a letter. Its signature says what it takes, as typer reads it: a parameter without a
        default is an argument, any other one is an option, and annotations give their types. Its
        docstring is the help. A plugin needs no import of typer for that. None and an empty list
        add no commands.

        If two plugins give one name, the function of the plugin that is asked first is called.

        A function returns None or an exit code. If it raises an error of :mod:`layergraph.errors`
        or an OSError, the command line prints the message in one line, and the exit code is 2. Any
        other error, and any other result, becomes such a line too, which names plugin and
        subcommand.
    """


@hookspec
def formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """List file formats: one row for each suffix.

    :func:`layergraph.save`, :func:`layergraph.load` and :func:`layergraph.load_model` ask each
    time. To read a structure without torch, they load only those plugins whose source, in the
    module that the entry point names, contains the word ``formats``. If a plugin fails here, a
    warning names it, and its formats are skipped.

    Returns:
        Rows, :class:`layergraph.Format`, no two for one suffix. None and an empty list add no
        formats.

        The longest suffix that the name of a file ends with decides. If two plugins list one
        suffix, the plugin that is asked first has it.
    """
