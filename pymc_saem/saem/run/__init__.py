"""A run: the step method, chains and their processes, options, progress, stopping and going on."""
