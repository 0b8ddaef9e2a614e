"""The steps of reading a model: levels, columns of phi, observed values, and what is refused."""
