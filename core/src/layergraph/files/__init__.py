"""Models in files: ``.json`` for the structure, ``.safetensors`` for the structure and the weights.

``docs/reference/file-format.md`` is the specification. Reading the structure needs no PyTorch.
"""
