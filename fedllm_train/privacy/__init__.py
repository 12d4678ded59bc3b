"""User-level differential privacy: the mechanism, its accounting, and what of a private run may be shown."""
