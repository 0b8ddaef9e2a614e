"""The PyTensor operations of a solution, their form in compiled graphs, and their call of a solver."""
