"""Symbolic numbers: sizes, and numbers from tensors, that record how they were computed."""
