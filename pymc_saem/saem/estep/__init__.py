"""The E-step: kernels that draw the random effects, their mixture, and the compiled loops over transitions."""
