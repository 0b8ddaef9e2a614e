"""What compiled code of all solvers shares: calls by address, vectors, the table of a call, threads, status codes."""
