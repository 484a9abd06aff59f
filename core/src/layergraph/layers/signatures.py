"""What is known of a class of layers: what its constructor takes, and its type."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import get_overloads

from torch import nn

from layergraph.errors import PluginError


def type_of(cls: type[nn.Module]) -> str:
    """The type of a class that says none.

    Raises:
        PluginError: it is no class of modules, or has the name of a layer of torch that it is not.
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
    """The types that layers of torch have, where nothing else is said."""
    return frozenset(name.lower() for name, each in vars(nn).items() if isinstance(each, type))


def parameters_of(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor, by name.

    Raises:
        PluginError: they cannot be read.
    """
    constructor: object = cls.__init__
    if constructor is nn.Module.__init__:  # which takes anything, and wants nothing
        return {}
    try:
        return signature_of(cls).parameters
    except (TypeError, ValueError) as error:
        raise PluginError(f"what {cls.__qualname__} takes cannot be read: {error}") from error


def signature_of(cls: type[nn.Module]) -> inspect.Signature:
    """What a constructor takes.

    One that takes ``*args, **kwargs`` may say what these can be in overloads, of which the first
    counts, or may be wrapped, as those of deprecated classes are.
    """
    signature = inspect.signature(cls)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if kinds != {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return signature
    constructor: Callable[..., None] = cls.__init__
    signature = inspect.signature([*get_overloads(constructor), constructor][0])
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)
