"""The answer of the hook ``unwrap``: a module without its wrapper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A module as it was before something wrapped it: the answer of the hook ``unwrap``.

    There are two kinds of wrapper. One is a module around another (``DistributedDataParallel``);
    then ``module`` is the inner one. The other changes the module itself (``fully_shard``); then
    ``module`` is the same module, and the other fields describe its state before. During a capture,
    the core sets this class, these attributes and these tensors on the module; then it restores the
    module.

    Attributes:
        module: the wrapped module, or the module itself.
        cls: the class that the module had; None if it is unchanged.
        attributes: the complete ``__dict__`` that the module had, with ``_parameters`` and so on;
            None if it is unchanged. It may share objects with the ``__dict__`` of the module, but
            the registries of ``torch.nn.Module`` must be new dicts.
        tensors: by the name of a parameter or buffer of this module, a function that makes the
            plain tensor for it. The core calls it once for each tensor, also if the tensor has
            several names. If the original is a parameter, the core makes a parameter of the result.
        annotations: plain values that describe the wrapper. Their names have a dot in them, such as
            ``"acme.mesh"``. They become annotations of the layer.

    Example:
        >>> import torch
        >>> from layergraph import Unwrapped
        >>> wrapper = torch.nn.DataParallel(torch.nn.ReLU())
        >>> Unwrapped(wrapper.module, annotations={"acme.wrapper": "DataParallel"}).module
        ReLU()
    """

    module: nn.Module
    cls: type[nn.Module] | None = None
    attributes: Mapping[str, Any] | None = None
    tensors: Mapping[str, Callable[[], torch.Tensor]] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
