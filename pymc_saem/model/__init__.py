"""A PyMC model read as a mixed-effects model: random effects, parameters, outcomes. Knows nothing of SAEM."""
