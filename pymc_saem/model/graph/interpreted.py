"""PyTensor functions that run without machine code: what runs once an iteration is not worth seconds of compilation."""

from __future__ import annotations

from collections.abc import Sequence

import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import in2out, node_rewriter
from pytensor.graph.traversal import ancestors


@node_rewriter([pt.add, pt.mul])
def _in_pairs(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """a + b + c as (a + b) + c: NumPy has no sum of three arrays, so PyTensor would call Python for each element."""
    total, *others = node.inputs
    if len(others) < 2:
        return None
    for other in others:
        total = node.op.make_node(total, other).outputs[0]
    return [total]


# Fused expressions would run in Python for each element, too. The position is after all rewrites
# that join sums.
INTERPRETED = (
    Mode(linker="py", optimizer="fast_run")
    .excluding("fusion", "inplace")
    .register((in2out(_in_pairs), 60))
)


def has_python_only_ops(graphs: Sequence[Variable]) -> bool:
    """Whether an operation of another package runs in Python only, as the solvers of sunode do.

    Numba would call Python for it too, with a warning, and fails where the operation cannot be
    pickled. PyTensor's own operations are left to PyTensor.
    """
    from pytensor.link.numba.dispatch import numba_funcify

    ops = {v.owner.op for v in ancestors(graphs) if v.owner is not None}
    kinds = {type(getattr(op, "core_op", op)) for op in ops}
    foreign = [kind for kind in kinds if kind.__module__.split(".")[0] != "pytensor"]
    return any(numba_funcify.dispatch(kind) is numba_funcify.dispatch(object) for kind in foreign)
