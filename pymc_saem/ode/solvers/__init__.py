"""The solvers, a file each, with the engines under them."""
