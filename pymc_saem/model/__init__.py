"""A PyMC model read as a mixed-effects model: random effects, parameters, outcomes. Independent of SAEM."""
