"""Symbolic numbers: sizes and numbers in tensors that keep how they were computed."""
