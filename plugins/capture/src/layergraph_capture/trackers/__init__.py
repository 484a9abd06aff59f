"""The trackers of a run: each follows one kind of fact, and writes to the recorder."""
