"""Checks of what ``solve_ivp`` is given: numbers, subjects and their labels, times, rows."""
