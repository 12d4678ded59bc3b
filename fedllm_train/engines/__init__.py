"""Where clients run: in this process or in several, with a simulated clock around either."""
