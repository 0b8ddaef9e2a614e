"""Hostile inputs by family, each with an answer that is not the package's own; run by ``benchmarks/robustness.py``.

A family is a module here with ``COUNT``, the number of its inputs, and ``make(seed)``, which gives
the :class:`judge.Input` of that number.
"""

#: Families in the order of the table. What they have in common is in ``judge``, ``linear`` and
#: ``compartments``.
FAMILIES = (
    "doses", "rows", "equations", "spellings", "readings", "fits", "options", "names", "shapes", "results", "files", "signals", "caches",
)  # fmt: skip
