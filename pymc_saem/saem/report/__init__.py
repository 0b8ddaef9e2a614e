"""From finished chains to a fit: its groups, what is computed after the estimate, and what the user should read."""
