"""Which rows and units depend on which entries of a variable: labels that run through the graph."""
