"""One run for both modes: the code goes through it again in the other one."""
