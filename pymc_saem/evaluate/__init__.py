"""A model evaluated at given values of its free variables: predictions, and data that the model generates."""
