"""Shared by the compiled code of all solvers: calls by address, vectors, the table of a call, threads, status codes."""
