"""Loops over a size: found in the records of runs with several lengths, and held as data."""
