"""From the sequence of calls to an IR: a graph for each module, both modes in one."""
