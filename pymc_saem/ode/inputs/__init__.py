"""What a call of ``solve_ivp`` is given, checked: numbers, subjects and their labels, times, rows."""
