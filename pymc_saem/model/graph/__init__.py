"""Graphs of PyTensor, whatever their meaning: how they run, copies of them, points to evaluate them at."""
