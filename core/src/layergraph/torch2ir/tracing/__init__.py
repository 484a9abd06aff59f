"""Tracing a model on symbols, without computing anything."""
