"""The tensors of a model: their memory, their kinds, and their descriptions in an IR."""
