"""The `dpo_implicit_reward` metric as an `evaluate` module and a Space."""
