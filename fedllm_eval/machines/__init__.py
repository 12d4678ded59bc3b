"""The clients' lines and devices: what is known of them, and what a visit takes there."""
