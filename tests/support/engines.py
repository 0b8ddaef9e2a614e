"""The parts of a SAEM run for a model, without a run."""

from pymc_saem.model.read import read_model
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine


def engine_of(model, **options):
    defaults = {
        "objective": "ml",
        "fixed": {},
        "n_transitions": 60,
        "n_replicates": 40,
        "kernel": "auto",
        "mode": "FAST_COMPILE",
    }
    return Engine.build(read_model(model), Schedule(10), **(defaults | options))
