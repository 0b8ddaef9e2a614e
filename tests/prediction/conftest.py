"""One fit of the random intercept model, in memory and from a file."""



