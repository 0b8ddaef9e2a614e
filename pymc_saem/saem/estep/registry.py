"""The kernels that there are, the only file that knows them by name."""

from __future__ import annotations

from pymc_saem.saem.estep.fsaem import Independence
from pymc_saem.saem.estep.kernel import Kernel
from pymc_saem.saem.estep.mala import Langevin
from pymc_saem.saem.estep.prior import PriorProposal
from pymc_saem.saem.estep.random_walk import Block, Coordinate

#: The order of those drawn ahead is that of their random draws: a new one goes last, or every fit
#: changes.
_ALL: tuple[type[Kernel], ...] = (PriorProposal, Coordinate, Block, Langevin, Independence)
KERNELS: dict[str, type[Kernel]] = {kernel.name: kernel for kernel in _ALL}


def default_shares() -> dict[str, float]:
    """Share of the transitions of each kernel that takes part by default."""
    return {name: kernel.share for name, kernel in KERNELS.items() if kernel.share > 0}


def statistics() -> dict[str, type]:
    """Types of the statistics that the kernels record in each iteration, by name."""
    return {
        name: dtype for kernel in KERNELS.values() for name, dtype in kernel.statistics().items()
    }
