"""The modules of a model, before it runs: the index of them, and what decides for each."""
