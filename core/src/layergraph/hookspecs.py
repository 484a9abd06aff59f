"""The hooks of layergraph. Their docstrings are the contract.

A plugin is a Python module with functions of these names, each marked with :data:`hookimpl`. An
entry point of its distribution, in the group ``layergraph``, names the module. An implementation
takes any of the hook's parameters, by name. :mod:`layergraph.plugins` gives the order of asking. Of
a hook whose answer is one thing or None, the first answer that is not None counts. A handler that
answers None can give a reason: ``return layergraph.decline("its weight is pruned")``.

Other hooks return a list of names or rows; None and an empty list add none. If rows of two plugins
have the same name, class or suffix, the row of the plugin that is asked first counts.

Files and the command line start without torch. So :func:`commands`, :func:`formats`,
:func:`passes` and :func:`lowerings` are asked each time, and only of plugins whose module contains
the name of the hook. If a plugin fails there, a warning names it and layergraph goes on without it.

layergraph checks each answer. It raises a PluginError, which names distribution and hook, if an
implementation raises any exception (SystemExit included), gives an answer of a wrong type, or gives
an endless list. It passes on KeyboardInterrupt, and the errors of layergraph that an implementation
raises on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from layergraph.ir import Implementation

if TYPE_CHECKING:
    from torch import nn

    from layergraph.capturing import Capturer, CaptureRequest
    from layergraph.hook_types.factories import Factory
    from layergraph.hook_types.formats import Format
    from layergraph.hook_types.lowerings import Lowering
    from layergraph.hook_types.passes import Pass
    from layergraph.hook_types.structures import Structure
    from layergraph.hook_types.wrapping import Unwrapped
    from layergraph.layers import Layer
    from layergraph.tensors.kinds import TensorKind

PROJECT = "layergraph"
VERSION = 1
"""The version of the hooks. It changes when implementations for the old version no longer work.

A plugin states the version that it was written for by a global ``layergraph_hooks = 1``. Without
it, layergraph takes the plugin to be written for this version.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the hook of the same name."""


@hookspec(firstresult=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe one module, by its class and attributes alone.

    A converter asks once for each module of a model, parents first. It does not ask about a module
    with forward hooks or with a ``forward`` attribute of its own, because such a module computes
    something else than its class.

    Args:
        module: the module in the model. A handler must not change or call it.

    Returns:
        None: this handler does not know the module. The converter asks the next handler; if none
        answers, it traces the calls inside the module.

        An :class:`~layergraph.Implementation` with ``type`` and ``data``: the module is a leaf of
        this type, whatever is inside it. ``data`` holds plain values. Answer so for exactly the
        classes that you know, because a subclass may compute something else.

        Such a leaf may keep hidden state between calls, in buffers that no state dict holds and
        that ``forward`` takes as arguments of the same names. An IR holds the numbers. If code of
        the model assigns such a buffer, the graph passes the value by its name in the next call.

        An :class:`~layergraph.Implementation` whose ``children`` are ``{}``: the module is a
        container. The converter traces the calls inside it and captures its children. It keeps
        ``type`` and ``data`` if the container and its children take tensors by position and return
        one tensor each; otherwise the type is ``module``, and the graph says what it does.

    Example:
        >>> import torch
        >>> from layergraph import Implementation, hookimpl
        >>> @hookimpl
        ... def torch_to_ir(module):
        ...     if type(module) is torch.nn.Threshold:
        ...         return Implementation("threshold", {"at": module.threshold})
        ...     return None
        >>> torch_to_ir(torch.nn.Threshold(0.5, 0.0)).data
        {'at': 0.5}
    """


@hookspec(firstresult=True)
def ir_to_torch(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> nn.Module | None:
    """Make the module that an implementation describes.

    A converter asks once for each implementation, children before parents. The core sets dtypes,
    frozen parameters, ties, modes and weights, and builds the type ``module``.

    Args:
        implementation: ``name``, ``type`` and ``data``; for a container, its graph too.
        children: the built children of a container by name, in order; empty for a leaf.

    Returns:
        None: this handler does not know the type. The converter asks the next handler; if none
        answers, it raises a BuildError that names the type.

        A new module, made for this call alone. The module of a container holds the given children
        under their names. If the graph, which may be edited, makes other calls than the class of
        the container, the handler raises an error of :mod:`layergraph.errors`, or declines.

    Example:
        >>> import torch
        >>> from layergraph import Implementation, hookimpl
        >>> @hookimpl
        ... def ir_to_torch(implementation):
        ...     if implementation.type == "threshold":
        ...         return torch.nn.Threshold(implementation.data["at"], 0.0)
        ...     return None
        >>> ir_to_torch(Implementation("threshold", {"at": 0.5}))
        Threshold(threshold=0.5, value=0.0)
    """


@hookspec
def functions() -> Collection[str | Factory]:  # type: ignore[empty-body]
    """Name functions of other libraries that may be nodes of a graph.

    Each converter asks once. A call of a named function becomes one node, and the converter does
    not trace the calls inside it. So the function must be pure, and to rebuild the model the plugin
    must be installed. The core imports the function's module when it builds such a model.

    A call of an ``autograd.Function`` and of an operation of ``torch.library`` is one node in
    memory without this hook. To be in a file, it has to be named: a class by its own name,
    ``"acme.ops.Sign"``.

    Returns:
        Full names: the Python module that defines the function, and its global there
        (``"torchvision.models.swin_transformer.shifted_window_attention"``). Name a custom
        operation by the function that ``torch.library.custom_op`` made, or by
        ``"torch.ops.acme.shift"``; then your plugin imports the module that registers it. A model
        may call it in any way. Do not name an operation that changes its arguments. A name of
        torch's own functions has no effect.

        For classes of ``autograd.Function`` that a function makes, a row,
        :class:`layergraph.Factory`, says how to make one again.

    Example:
        >>> from layergraph import hookimpl
        >>> @hookimpl
        ... def functions():
        ...     return ["acme.ops.shift"]
    """


@hookspec
def layers() -> Iterable[Layer]:  # type: ignore[empty-body]
    """List layers that their constructor arguments describe: one row for each class.

    The core asks once, when it loads the plugin. From the rows it answers ``torch_to_ir`` and
    ``ir_to_torch`` for these classes and types, with the precedence of the plugin. Each class
    becomes a leaf, with its constructor arguments as attributes. For your own classes, there is the
    decorator :func:`layergraph.layer`.

    Returns:
        Rows, :class:`layergraph.layers.Layer`, no two for one class or one type.

    Example:
        >>> import torch
        >>> from layergraph import hookimpl
        >>> from layergraph.layers import Layer
        >>> @hookimpl
        ... def layers():
        ...     return [Layer(torch.nn.Linear, always=["bias"]), Layer(torch.nn.ReLU)]
        >>> [row.type for row in layers()]
        ['linear', 'relu']
    """


@hookspec(firstresult=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return inputs for :func:`layergraph.example_inputs`, as small as the model allows.

    Args:
        model: the model to capture. An implementation must not change or run it.

    Returns:
        None: this plugin does not know the model's class, and the next plugin is asked.

        The positional arguments of a call, and its arguments by name. Tensors are on the device of
        the model's parameters.

    Example:
        >>> import torch
        >>> from layergraph import hookimpl
        >>> @hookimpl
        ... def example_inputs(model):
        ...     if type(model) is torch.nn.Linear:
        ...         return (torch.zeros(1, model.in_features),), {}
        ...     return None
        >>> example_inputs(torch.nn.Linear(2, 3))
        ((tensor([[0., 0.]]),), {})
    """


@hookspec
def structures() -> Iterable[Structure]:  # type: ignore[empty-body]
    """List classes of objects that models take and return, such as a cache: one row for each class.

    A converter asks when it captures a model on example inputs. Without a row, an object among the
    arguments is refused, unless it is a dataclass; one in a result becomes a
    :class:`layergraph.outputs.Output` with its attributes.

    Returns:
        Rows, :class:`layergraph.Structure`, no two for one class. The hook ``functions`` of the
        plugin names the functions of each row, also where the library of the class is missing.

    Example:
        >>> from layergraph import Structure, hookimpl
        >>> @hookimpl
        ... def structures():
        ...     from acme import Memory, memory_parts, memory_of_parts
        ...     return [Structure(Memory, memory_parts, memory_of_parts)]
    """


@hookspec
def tensor_kinds() -> Iterable[TensorKind]:  # type: ignore[empty-body]
    """List kinds of tensors that are no block of numbers, such as quantized and sparse tensors.

    A converter asks once. The IR describes the parts of such a parameter, buffer or constant, and a
    file holds them. Without a row, the core refuses it.

    Returns:
        Rows, :class:`layergraph.TensorKind`, no two of one name. The first row whose ``flatten``
        answers counts.

    Example:
        >>> from layergraph import TensorKind, hookimpl
        >>> @hookimpl
        ... def tensor_kinds():
        ...     from acme import take_apart, put_together
        ...     return [TensorKind("acme.Runs", take_apart, put_together)]
    """


@hookspec(firstresult=True)
def unwrap(module: nn.Module, needs_numbers: bool) -> Unwrapped | None:
    """Tell what a module was before something wrapped it.

    A converter asks before a capture, for the model and each module, in the order of the state
    dict. It asks again about each answer, so wrappers may lie in each other. If all decline a
    module, it may not ask for others of this class.

    Args:
        module: a module, or another object that the user gives as the model.
        needs_numbers: whether to give plain tensors with all numbers for those that a wrapper has
            split. If not, give tensors on the meta device, for which nothing has to be sent.

    Returns:
        None: this plugin knows no such wrapper. Otherwise an :class:`~layergraph.Unwrapped`.

    Example:
        >>> import torch
        >>> from layergraph import Unwrapped
        >>> def unwrap(module):
        ...     return Unwrapped(module.module) if hasattr(module, "module") else None
        >>> unwrap(torch.nn.DataParallel(torch.nn.ReLU())).module
        ReLU()
    """


@hookspec(firstresult=True)
def capture(request: CaptureRequest) -> Capturer | None:
    """Capture a model: record the functions and layers that it calls.

    A converter asks once for each model, after it has indexed the modules.

    Args:
        request: the model, the answers of the handlers for its modules, and the example calls
            (``request.examples``). An implementation must leave the model as it was.

    Returns:
        None: this plugin does not capture the model, and the next plugin is asked. If none answers,
        the core traces the model on symbols; with example inputs, it raises a CaptureError.

        A :class:`~layergraph.capturing.Capturer`: its ``tracer`` records the calls of one run. Its
        ``complete`` may run more tracers, for other ways and examples, and returns one record.

    Example:
        >>> from layergraph import hookimpl
        >>> @hookimpl
        ... def capture(request):
        ...     if not request.has_example:
        ...         return None
        ...     from acme import AcmeCapturer
        ...     return AcmeCapturer(request)
    """


@hookspec
def commands() -> Iterable[Callable[..., int | None]]:  # type: ignore[empty-body]
    """Give subcommands of the command ``layergraph``: one function for each.

    The command line (``layergraph-cli``) asks.

    Returns:
        Functions. ``new_plugin`` is the subcommand ``new-plugin``. typer reads its signature: a
        parameter without a default is an argument, any other one is an option, and annotations
        give the types. The docstring is the help. The plugin does not import typer.

        A function returns None or an exit code. For an error of :mod:`layergraph.errors` and an
        OSError, the command line prints the message in one line, and the exit code is 2. For any
        other exception or result, the line names plugin and subcommand too.

    Example:
        >>> from layergraph import hookimpl
        >>> def count(path: str) -> None:
        ...     "Print the number of implementations in a file."
        ...     import layergraph as lg
        ...     print(len(lg.load(path)))
        >>> @hookimpl
        ... def commands():
        ...     return [count]
    """


@hookspec
def formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """List file formats: one row for each suffix.

    :func:`layergraph.save`, :func:`layergraph.load` and :func:`layergraph.load_model` ask.

    Returns:
        Rows, :class:`layergraph.Format`, no two for one suffix. If several suffixes fit the name of
        a file, the longest one counts.

    Example:
        >>> from layergraph import Format, hookimpl
        >>> def write(ir, path, state_dict=None):
        ...     with open(path, "w") as file:
        ...         file.write(str(ir))
        >>> @hookimpl
        ... def formats():
        ...     return [Format(".txt", "the printed IR", write=write)]
    """


@hookspec
def passes() -> Iterable[Pass]:  # type: ignore[empty-body]
    """List passes: named functions that edit an IR, one row for each.

    :func:`layergraph.run_passes` and ``layergraph run`` ask.

    Returns:
        Rows, :class:`layergraph.Pass`, no two of one name.

        A function gets a :class:`layergraph_rewrite.Edit`, edits it, and returns None. It adds each
        change, and each place that it refuses, to ``edit.report``. If it cannot go on, it raises an
        error of :mod:`layergraph.errors`.

    Example:
        >>> from layergraph import Pass, hookimpl
        >>> def remove_identities(edit):
        ...     "Remove all identities."
        ...     for call in edit.select("identity"):
        ...         edit.remove(call)
        >>> @hookimpl
        ... def passes():
        ...     return [Pass("acme-remove-identities", remove_identities)]
    """


@hookspec
def lowerings() -> Iterable[Lowering]:  # type: ignore[empty-body]
    """List handlers of back ends: how a target says a layer or a function.

    :func:`layergraph_backends.lower` asks.

    Returns:
        Rows, :class:`layergraph.Lowering`. For each step of a graph, the rows that name its layer
        or function are asked, then the rows that name none; in both groups, in the order of
        plugins. The first answer that is not None counts.

    Example:
        >>> from layergraph import Lowering, hookimpl
        >>> def lower_relu(step, backend):
        ...     return f"max(0, {step.args[0]})"
        >>> @hookimpl
        ... def lowerings():
        ...     return [Lowering("acme", lower_relu, layers=["relu"], functions=["torch.relu"])]
    """
