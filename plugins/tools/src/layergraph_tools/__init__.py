"""Tools for models and their IR: verify, preflight, diff, explain, and the tests for plugins."""
