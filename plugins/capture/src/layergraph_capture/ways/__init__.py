"""One record of all the ways that a model goes by its decisions."""
