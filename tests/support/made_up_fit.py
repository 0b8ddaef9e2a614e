"""A fit with values of choice, in the groups of a real one, for models that need not be estimated."""

import numpy as np

from pymc_saem.model.outcomes import data_value
from pymc_saem.results.build import FitResult, Variable, build_datatree


def made_up_fit(
    model,
    effects,
    parameters,
    row_subject,
    chains=1,
    n_explore=4,
    n_iterations=10,
    draws=30,
    best=0,
):
    """Random effects at ``{name: conditional mode}``, drawn with 5 % spread; population value: their median.

    ``row_subject`` has the subject index of the rows of each outcome, by name.
    """
    rng = np.random.default_rng(0)
    dim = model.named_vars_to_dims[next(iter(effects))][0]
    posterior, individual, trace = {}, {}, {}
    labels, estimates = [], []
    for name, value in parameters.items():
        value = np.asarray(value, dtype=float)
        posterior[name] = Variable((), np.broadcast_to(value, (chains, draws, *value.shape)))
        path = value + rng.normal(size=(chains, n_iterations, *value.shape))
        trace[name] = Variable((), path)
        labels += [
            name if not at else f"{name}[{', '.join(map(str, at))}]"
            for at in np.ndindex(*value.shape)
        ]
        estimates += list(value.ravel())
    for name, mode in effects.items():
        mode = np.asarray(mode, dtype=float)
        spread = 1 + 0.05 * rng.normal(size=(chains, draws, *mode.shape))
        dims = model.named_vars_to_dims[name]
        posterior[name] = Variable(dims, mode * spread)
        individual[f"{name}_mode"] = Variable(dims, mode)
        individual[f"{name}_population"] = Variable(dims, np.full(mode.shape, np.median(mode)))
    steps = np.broadcast_to(1.0, (chains, n_iterations))
    trace |= {
        n: Variable((), steps)
        for n in ("accept_prior", "accept_block", "complete_logp", "step_size")
    }
    return build_datatree(
        FitResult(
            coords={
                name: list(values) for name, values in model.coords.items() if values is not None
            },
            trace=trace,
            population={"parameter": np.array(labels), "estimate": np.array(estimates)},
            observed={
                rv.name: Variable((), data_value(model.rvs_to_values[rv]))
                for rv in model.observed_RVs
            },
            constant={
                f"{name}_subject": Variable((), np.asarray(rows))
                for name, rows in row_subject.items()
            },
            posterior=posterior,
            individual=individual,
            attrs={"subject_dim": dim},
            group_attrs={"saem_trace": {"n_explore": n_explore, "best_chain": best}},
        )
    )
