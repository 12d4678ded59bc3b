"""What the server rule will see of a step's replies: every update, or something in their place."""
