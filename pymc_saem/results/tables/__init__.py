"""Tables of a fit and of several fits, and how they print."""
