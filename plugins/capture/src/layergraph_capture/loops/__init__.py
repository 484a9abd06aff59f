"""Loops over a size, found by comparing runs on inputs of several lengths.

A *turn* is one iteration of a loop.
"""
