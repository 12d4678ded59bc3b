"""What the server rule will see of a step's replies: every update, or a mean of them."""
