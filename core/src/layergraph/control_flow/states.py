"""Setting a tensor of a model: a graph keeps it for later calls."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

SETTER = "_set_state"
"""The method of a module with a graph that sets a tensor."""


def set_state(setter: Callable[[str, object], None], path: str, value: object) -> None:
    """Set a tensor of a module. A node of type ``state`` with an argument runs this.

    Args:
        setter: the method :data:`SETTER` of the module that runs the graph.
        path: the attribute path of the tensor.
        value: the new tensor.

    Raises:
        TypeError: the value is no tensor, or the module has no such buffer.
    """
    setter(path, value)


def set_buffer(module: nn.Module, name: str, value: object) -> None:
    """Replace a buffer of a module by another tensor.

    Args:
        module: the module that owns the buffer.
        name: the name of the buffer.
        value: the new tensor.

    Raises:
        TypeError: the value is no tensor, or the module has no such buffer.
    """
    if name not in module._buffers or not isinstance(value, Tensor):
        raise TypeError(
            f"a graph sets {name!r} of a {type(module).__name__} to a {type(value).__name__}; let "
            "it set a buffer to a tensor"
        )
    module._buffers[name] = value
