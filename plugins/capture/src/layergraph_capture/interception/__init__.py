"""The places where a run is seen: modes of torch, patched functions, questions to tensors."""
