"""Functions of layergraph in graphs: guards, choices, loops, transforms, regions."""
