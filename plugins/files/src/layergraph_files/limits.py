"""What a file may ask for, before it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a file may make layergraph do while it is loaded.

    Attributes:
        text_bytes: the length of a ``.json`` file, or of the header of a ``.safetensors`` file, in
            bytes. The default is that of safetensors itself.
        modules: how many modules a model may have, counted once for each path that leads there.
            None: a hundred for each layer, child and tensor of the file, and 10,000 besides.
        tensors: how many tensors may be made while the modules are built. Four times as many as the
            file has are allowed anyway. Some constructors take quadratic time in that number. None:
            a hundred for each layer that the file describes, and 1,000 besides.
        tensor_numbers: how many numbers one tensor may have that is made while the modules are
            built. One as large as the largest in the file is allowed anyway.
        tensor_bytes: how many bytes all of these may have together. None: as many as are made
            without memory; those that need memory may take four times what the file has, and 256
            MiB besides.
    """

    text_bytes: int = 100_000_000
    modules: int | None = None
    tensors: int | None = None
    tensor_numbers: int = 1 << 24
    tensor_bytes: int | None = None


DEFAULT_LIMITS = Limits()
