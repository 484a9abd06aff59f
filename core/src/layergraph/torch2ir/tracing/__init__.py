"""Capturing a model on symbols: nothing is computed."""
