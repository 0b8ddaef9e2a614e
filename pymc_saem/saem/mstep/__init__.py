"""The M-step of a model: which parameters have closed forms, and steps for those that have none."""
