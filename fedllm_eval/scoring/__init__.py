"""Scores as pure functions of arrays: numpy and SciPy only, no model, no file."""
