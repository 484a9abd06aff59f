"""Read weights from files of other programs."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from layergraph.errors import FileError
from layergraph_files.build import mapped
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.reader import opened_weights

_TENSORS = (torch.Tensor, nn.Parameter)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict in a file of safetensors or of ``torch.save``, without running its code.

    Raises:
        FileError: the file cannot be read, or does not hold a state dict.
    """
    if path.suffix in (".safetensors", ".json") or path.is_dir():
        with opened_weights(path, DEFAULT_LIMITS) as stored:
            # The tensors need no alignment: no kernel reads them before lg.save writes them again.
            return mapped(stored, alignment=1)
    try:
        # Load only tensors: a file that may make layers can also change their classes.
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        remedy = "check the path and the rights"
        raise FileError(f"{path}: {error.strerror or error}; {remedy}") from error
    except Exception as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{wanted[1]}, and not tensors alone" if wanted else "no state dict of torch.save"
        raise FileError(f"{path}: it holds {what}; save model.state_dict()") from None
    if not isinstance(found, dict) or not found:
        raise FileError(f"{path}: it holds no state dict; save model.state_dict()")
    for name, tensor in found.items():
        if type(name) is not str or type(tensor) not in _TENSORS:
            raise FileError(
                f"{path}: {name!r} is a {type(tensor).__name__} and no tensor; "
                "save model.state_dict() and nothing else"
            )
    return found
