"""A coverage-guided search for files that layergraph mishandles: run by ``make fuzz``."""
