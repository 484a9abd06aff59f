"""Capturing a model by running it once: it computes, and what it does is written down."""
