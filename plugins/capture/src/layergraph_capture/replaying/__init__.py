"""Replay: one run for both modes, whose results the code reuses in the other mode."""
