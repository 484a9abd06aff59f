"""The type of a class of layers, and the signature of its constructor."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import get_overloads

from torch import nn

from layergraph.errors import PluginError


def type_of(cls: type[nn.Module]) -> str:
    """Return the default type of a class of layers: its name in lower case.

    Raises:
        PluginError: the class is not a module, or another class of torch.nn has its name.
    """
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise PluginError(f"{cls!r} is no class of modules; give a subclass of torch.nn.Module")
    name = cls.__name__
    if getattr(nn, name, None) is not cls and name.lower() in types_of_torch():
        home = cls.__module__.partition(".")[0]
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__} would have the type of a layer of torch; give it "
            f"another one, type={f'{home}_{name}'.lower()!r}, or, to take the place of torch's, "
            f"type={name.lower()!r}"
        )
    return name.lower()


@functools.cache
def types_of_torch() -> frozenset[str]:
    """Return the default types of the classes of torch.nn: their names in lower case.

    Example:
        >>> from layergraph.layers import types_of_torch
        >>> "conv2d" in types_of_torch()
        True
    """
    return frozenset(name.lower() for name, each in vars(nn).items() if isinstance(each, type))


def parameters_of(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a constructor, by name.

    Raises:
        PluginError: Python cannot read its signature.
    """
    constructor: object = cls.__init__
    if constructor is nn.Module.__init__:  # its *args and **kwargs are not arguments of the class
        return {}
    try:
        return signature_of(cls).parameters
    except (TypeError, ValueError) as error:
        raise PluginError(f"the signature of {cls.__qualname__} cannot be read: {error}") from error


def signature_of(cls: type[nn.Module]) -> inspect.Signature:
    """Return the signature of a constructor, without ``self``.

    For a constructor that takes just ``*args, **kwargs``, this is the signature of its first
    overload, or of the function that it wraps, as in deprecated classes.

    Raises:
        TypeError: the class has no constructor that Python can inspect.
        ValueError: the constructor has no signature.

    Example:
        >>> import torch
        >>> from layergraph.layers import signature_of
        >>> list(signature_of(torch.nn.Dropout).parameters)
        ['p', 'inplace']
    """
    signature = inspect.signature(cls)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if kinds != {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return signature
    constructor: Callable[..., None] = cls.__init__
    signature = inspect.signature([*get_overloads(constructor), constructor][0])
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)
