"""What becomes of every setting that TRL and PEFT know and that a federated run is given: one table a config."""
