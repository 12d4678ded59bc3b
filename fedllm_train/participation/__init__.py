"""Whom to ask in a step, and which replies make it."""
