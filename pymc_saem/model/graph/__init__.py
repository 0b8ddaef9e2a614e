"""Graphs of PyTensor, whatever they mean: how they run, copies of them, points to ask them at."""
