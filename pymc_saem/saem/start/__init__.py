"""Where a run starts: pooled gradient fits, and starts that do not fit the scale of the data."""
