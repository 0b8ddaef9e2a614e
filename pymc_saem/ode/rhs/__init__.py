"""A right-hand side: traced, differentiated, printed as source, and compiled."""
