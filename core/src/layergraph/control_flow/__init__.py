"""The functions that a graph calls besides torch: guards, choices, loops, transforms, regions."""
