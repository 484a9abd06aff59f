"""Layers of torch.nn that become composites because no installed package handles them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import importlib_metadata
from torch import nn

from layergraph.plugins import distribution_for
from layergraph.torch2ir.indexing.module_index import ModuleIndex


def unhandled(module_index: ModuleIndex) -> dict[str, list[str]]:
    """Find the layers that a built-in plugin would handle if it was installed.

    A disabled plugin does not count: the user has chosen that.

    Args:
        module_index: the modules of a model, with the answers of the handlers.

    Returns:
        The names of classes by the distribution to install, such as
        ``{"layergraph-linear": ["Linear"]}``.
    """
    found: dict[str, list[str]] = {}
    classes = {type(each.module): None for each in module_index if each.answer is None}
    for cls in classes:
        distribution = distribution_for(cls.__module__)
        # A list of modules has no forward, and is no layer.
        if distribution is not None and cls.forward is not nn.Module.forward:
            found.setdefault(distribution, []).append(cls.__name__)
    return {name: classes for name, classes in found.items() if not _is_installed(name)}


def advice(missing: Mapping[str, Sequence[str]]) -> str:
    """Return a message that names the layers and the packages to install."""
    named = ", ".join(sorted({name for names in missing.values() for name in names}))
    return (
        f"no installed package handles {named}: each is traced through, and comes back as the "
        f"functions that it calls; to keep layers, pip install {' '.join(sorted(missing))}"
    )


def _is_installed(distribution: str) -> bool:
    try:
        importlib_metadata.distribution(distribution)
    except importlib_metadata.PackageNotFoundError:
        return False
    return True
