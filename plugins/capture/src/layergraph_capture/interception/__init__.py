"""Interception of a run: torch's modes, patched functions, queries of tensors."""
