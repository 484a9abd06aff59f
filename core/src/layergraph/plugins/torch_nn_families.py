"""Which built-in plugin is for which part of torch.nn."""

from __future__ import annotations

from layergraph.plugins.plugin import BUILTIN_PREFIX

# The plugins for the files of torch.nn that are not named as they are.
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
    """The built-in distribution that would handle a layer of torch.

    Args:
        defined_in: the name of the Python module that defines the layer's class.

    Returns:
        A name to look for (``layergraph-conv``), whether or not it is installed; None for what is
        not a layer of torch.nn.
    """
    package, _, file = defined_in.rpartition(".")
    if package != "torch.nn.modules":
        return None
    return BUILTIN_PREFIX + _SECTIONS.get(file, file)
