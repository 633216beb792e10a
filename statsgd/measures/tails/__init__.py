"""How heavy tails are, and whether noise is as far from normal as it looks."""
