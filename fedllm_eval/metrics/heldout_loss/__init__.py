"""The `heldout_loss` metric as an `evaluate` module and a Space."""
