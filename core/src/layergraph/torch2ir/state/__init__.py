"""State around a run: of torch, of the process, and of the objects that the model reaches."""
