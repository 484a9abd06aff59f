"""The index of a model's modules, made before the model runs, and the checks on it."""
