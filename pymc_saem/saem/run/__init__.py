"""A run: the step method, chains and their processes, options, progress, interruption and resuming."""
