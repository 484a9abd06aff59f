"""What a verification runs, and how it compares."""
