"""Attackers of a simulated run: who they are, what they do to their rows and updates, and what came of it."""
