"""The ways to write a normal random effect, and how each is recognized."""
