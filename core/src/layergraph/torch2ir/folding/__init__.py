"""Folding of the recorded calls to an IR: one graph per module, for both modes."""
