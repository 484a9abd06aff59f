"""The limits for loading a file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on the time and memory that loading a file may take.

    Attributes:
        text_bytes: the most bytes of a ``.json`` file, or of the header of a ``.safetensors`` file.
            The default is the limit of safetensors itself.
        modules: the most modules of the model; a module with several paths counts once for each
            path. None: 10,000, and 100 more for each layer, child and tensor of the file.
        tensors: the most tensors that the layers' constructors may make; four times the number in
            the file is always allowed. Some constructors take quadratic time in this number. None:
            1,000, and 100 more for each layer of the file.
        tensor_numbers: the most numbers in one tensor that a constructor makes; the size of the
            largest tensor in the file is always allowed.
        tensor_bytes: the most bytes of all tensors that the constructors make. None: 4 TiB in
            total, and 256 MiB plus four times the bytes of the tensors in the file for those that
            take memory. Most tensors take none: they are built on the meta device.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Linear(2, 3)
        >>> lg.save(lg.to_ir(model), "model.safetensors", model.state_dict())
        >>> lg.load_model("model.safetensors", limits=lg.Limits(text_bytes=1000))
        Linear(in_features=2, out_features=3, bias=True)
    """

    text_bytes: int = 100_000_000
    modules: int | None = None
    tensors: int | None = None
    tensor_numbers: int = 1 << 24
    tensor_bytes: int | None = None


DEFAULT_LIMITS = Limits()
