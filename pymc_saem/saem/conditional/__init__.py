"""The random effects given the data, after the estimate: draws, modes, and whether the draws suffice."""
