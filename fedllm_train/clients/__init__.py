"""What happens at a client: its rows, its objective, the resident trainer, what it remembers."""
