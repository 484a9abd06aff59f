"""Layers of torch.nn that are traced through, because the package that handles them is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import importlib_metadata
from torch import nn

from layergraph.plugins import distribution_for
from layergraph.torch2ir.indexing.module_index import ModuleIndex


def unhandled(module_index: ModuleIndex) -> dict[str, list[str]]:
    """Find the layers that a built-in plugin would handle if it was installed.

    A plugin that is installed and disabled does not count: that is a choice.

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
    """Say which layers are traced through, and what to install."""
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
