"""The functions that may be nodes of a graph: their table, and their stable names."""
