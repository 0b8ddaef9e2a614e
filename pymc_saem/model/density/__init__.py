"""The model as functions of theta and phi: points, densities, distributions of the effects, priors."""
