"""PyTensor functions that run without machine code: what runs once an iteration is not worth seconds of compilation."""

from __future__ import annotations

import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.basic import in2out, node_rewriter


@node_rewriter([pt.add, pt.mul])
def _in_pairs(fgraph, node):
    """a + b + c as (a + b) + c: NumPy has no sum of three arrays, so PyTensor would call Python for each element."""
    total, *others = node.inputs
    if len(others) < 2:
        return None
    for other in others:
        total = node.op.make_node(total, other).outputs[0]
    return [total]


# Fused expressions would run in Python for each element, too. The position is after all rewrites that join sums.
INTERPRETED = Mode(linker="py", optimizer="fast_run").excluding("fusion", "inplace").register((in2out(_in_pairs), 60))
