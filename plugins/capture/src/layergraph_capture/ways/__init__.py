"""The ways of a model through its decisions, merged into one record."""
