"""Fisher information, standard errors, and what the data do not determine."""
