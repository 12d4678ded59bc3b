"""What a run leaves on disk: checkpoints, adapters, config, card, and how it goes on or is published."""
