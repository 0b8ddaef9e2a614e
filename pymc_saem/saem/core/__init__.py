"""The mathematics of SAEM in NumPy and SciPy: the loop, step sizes, maximizers, the Gaussian distribution."""
