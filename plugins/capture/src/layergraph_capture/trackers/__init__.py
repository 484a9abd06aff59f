"""The trackers: each knows one thing about a run, and writes it to the recorder."""
