"""The built-in plugin for each file of torch.nn."""

from __future__ import annotations

from layergraph.plugins.plugin import BUILTIN_PREFIX

# The family of each file of torch.nn.modules that has another name than its family.
_SECTIONS = {
    "adaptive": "loss",
    "batchnorm": "normalization",
    "channelshuffle": "shape",
    "container": "sequential",
    "flatten": "shape",
    "fold": "conv",
    "instancenorm": "normalization",
    "pixelshuffle": "shape",
    "rnn": "recurrent",
    "upsampling": "shape",
}


def distribution_for(defined_in: str) -> str | None:
    """Return the name of the built-in distribution that handles a layer of torch.nn.

    Args:
        defined_in: the name of the Python module that defines the layer's class.

    Returns:
        The name, such as ``layergraph-conv``, installed or not; None for a class that is not in
        torch.nn.
    """
    package, _, file = defined_in.rpartition(".")
    if package != "torch.nn.modules":
        return None
    return BUILTIN_PREFIX + _SECTIONS.get(file, file)
