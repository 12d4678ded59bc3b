"""The `client_spread` metric as an `evaluate` module and a Space."""
