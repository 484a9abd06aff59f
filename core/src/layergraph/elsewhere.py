"""Names of layergraph that other distributions define, imported on first use."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType
from typing import Any

from layergraph.errors import MissingDistributionError


def imported(module: str, name: str) -> Any:
    """Return an attribute of a module from a distribution that may be missing.

    Args:
        module: the name of the module.
        name: the name of the attribute.

    Raises:
        MissingDistributionError: the distribution of the module is not installed.
    """
    return getattr(imported_module(module, f"layergraph.{name}"), name)


def imported_module(module: str, wanted: str) -> ModuleType:
    """Import a module from a distribution that may be missing.

    Args:
        module: the name of the module.
        wanted: the thing that needs the module, for the message.

    Raises:
        MissingDistributionError: the distribution of the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        distribution = package.replace("_", "-")
        raise MissingDistributionError(
            f"{wanted} is part of {distribution}, which is not installed; "
            f"pip install {distribution}",
            name=package,
        ) from None


def is_installed(module: str) -> bool:
    """Return whether the distribution of a module is installed."""
    return _is_found(module.partition(".")[0])


# Cached, because a search goes through all of sys.path, and many names share a package.
@functools.cache
def _is_found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
