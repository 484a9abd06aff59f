"""The parts of a verification: its subjects, inputs, settings and comparison."""
