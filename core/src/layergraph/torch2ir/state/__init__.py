"""State outside the graph: of torch, of the process, and of objects that the model reaches."""
