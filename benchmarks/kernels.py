"""Effective draws of each E-step kernel, per second and per transition.

    python benchmarks/kernels.py [--models pk neural banana two_modes] [--kernels prior mala
    mixture] [--calls 3000]

Each model first runs SAEM for a while, so that parameters and states are where an E-step finds
them. Then the parameters stay, and each kernel alone tunes itself for 60 calls of 20 transitions,
is frozen, and keeps the states after every second transition. Time is taken from calls of 80
transitions, as in a fit, on one thread; it is that of the processor, so other programs matter
little. The effective size of draws of phi per subject (Geyer's initial positive sequence;
autocovariances averaged over replicates around the mean of all of a subject's draws, correlations
over subjects) is given for the slowest coordinate and for the median one. A transition costs one
solve for each subject and replicate, of "mala" one with derivatives.
"""

import argparse
from time import process_time

import numba
import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_saem as ps
from pymc_saem.demo import theophylline_model
from pymc_saem.saem.estep.registry import KERNELS, default_shares

N_TRANSITIONS, N_TUNE, N_EXPLORE = 20, 60, 100
#: Transitions between two draws; transitions of a call that is timed, and such calls.
THIN, N_TIMED, N_TIMED_CALLS = 2, 80, 15


def pk() -> pm.Model:
    """One compartment with first-order absorption, three log-normal effects, as in the README."""
    data = ps.datasets.load_theophylline()
    subject, ids = data["subject"].factorize()
    dose = data.groupby("subject", sort=False)["dose"].first().to_numpy()
    with pm.Model(coords={"subject": ids}) as model:
        sigma, effects = pm.HalfFlat("sigma", initval=1.0), {}
        for name, start in (("ka", 0.0), ("V", 3.0), ("CL", 1.0)):
            mean, omega = (
                pm.Flat(f"log_{name}", initval=start),
                pm.HalfFlat(f"omega_{name}", initval=0.5),
            )
            effects[name] = pm.LogNormal(name, mean, omega, dims="subject")
        solution = ps.ode.solve_ivp(
            lambda t, y, p: {"depot": -p.ka * y.depot, "center": p.ka * y.depot / p.V - p.CL / p.V * y.center},
            {"depot": dose, "center": 0.0}, effects, t=data["time"], subject=subject, rtol=1e-4, atol=1e-4, solver="tsit5",
        )  # fmt: skip
        pm.Normal("conc", solution.center, sigma, observed=data["conc"])
    return model


def banana() -> pm.Model:
    """Two effects of which a parabola is observed: a curved ridge per subject."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20, 2))
    y = truth[:, 1] + truth[:, 0] ** 2 + 0.2 * rng.standard_normal(20)
    with pm.Model(coords={"subject": range(20), "effect": ["u", "v"]}) as model:
        mean = pm.Flat("mean", dims="effect", initval=np.zeros(2))
        b = pm.MvNormal("b", mean, np.eye(2), dims=("subject", "effect"))
        pm.Normal("y", b[:, 1] + b[:, 0] ** 2, 0.2, observed=y)
    return model


def two_modes() -> pm.Model:
    """One effect of which the size is observed, not the sign."""
    rng = np.random.default_rng(1)
    size = np.abs(rng.normal(0.3, 1.5, 20)) + 0.2 * rng.standard_normal(20)
    with pm.Model(coords={"subject": range(20)}) as model:
        b = pm.Normal("b", pm.Flat("mean", initval=0.3), 1.5, dims="subject")
        pm.Normal("y", pt.sqrt(b**2 + 0.01), 0.2, observed=size)
    return model


MODELS = {"pk": pk, "neural": theophylline_model, "banana": banana, "two_modes": two_modes}


def autocorrelation_time(x: np.ndarray) -> float:
    """Integrated autocorrelation time of draws (call, replicate, subject), pooled."""
    n = x.shape[0]
    f = np.fft.rfft(x - x.mean(axis=(0, 1)), 2 * n, axis=0)
    covariance = np.fft.irfft(np.abs(f) ** 2, axis=0)[:n] / (n - np.arange(n))[:, None, None]
    covariance = covariance.mean(axis=1)
    correlation = (covariance / covariance[0]).mean(axis=1)
    pairs = correlation[1:-1:2] + correlation[2::2]
    end = np.argmax(pairs < 0) if np.any(pairs < 0) else pairs.size
    return 1.0 + 2.0 * pairs[:end].sum()


def prepare(model):
    """Simulator, population, theta and phi after some iterations of SAEM."""
    step = ps.SAEM(model=model, objective="ml", n_explore=N_EXPLORE, n_starts=0)
    step.begin_chain(np.random.default_rng(3), N_EXPLORE)
    point = model.initial_point()
    for _ in range(N_EXPLORE):
        point, _ = step.step(point)
    theta = step.state.theta
    return step.simulator, step.engine.maximizer.population(theta), theta, step.state.phi


def measure(simulator, population, theta, phi, shares, n_calls: int):
    """Seconds per transition, mean acceptance, and effective draws per subject and transition of each coordinate."""
    for kernel in simulator.kernels.values():
        kernel.tune = True
    simulator.shares = shares
    for _ in range(N_TUNE):
        phi, _, _ = simulator(population, theta, phi, N_TRANSITIONS)
    simulator.stop_tuning()
    seconds, rates = [], []
    for _ in range(N_TIMED_CALLS):
        mark = process_time()
        phi, _, report = simulator(population, theta, phi, N_TIMED)
        seconds.append((process_time() - mark) / N_TIMED)
        rates.append(
            np.nanmean([report[f"accept_{name}"] for name, share in shares.items() if share])
        )
    draws = []
    for _ in range(n_calls):
        phi, _, _ = simulator(population, theta, phi, THIN)
        draws.append(phi)
    draws = np.array(draws)
    times = np.array([autocorrelation_time(draws[..., k]) for k in range(draws.shape[-1])])
    return np.median(seconds), np.mean(rates), phi.shape[0] / (THIN * times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--kernels", nargs="+", choices=[*KERNELS, "mixture"], default=[*KERNELS, "mixture"]
    )
    parser.add_argument("--calls", type=int, default=3000)
    options = parser.parse_args()
    numba.set_num_threads(1)
    print(
        "| model | kernel | accepted | us per transition | draws per second | draws per 1000 transitions |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.models:
        simulator, *state = prepare(MODELS[name]())
        adapted = simulator.adapted
        for kernel in options.kernels:
            simulator.adapted = adapted
            shares = default_shares() if kernel == "mixture" else {kernel: 1.0}
            seconds, rate, size = measure(simulator, *state, shares, options.calls)
            slowest, median = size.min(), np.median(size)
            print(
                f"| {name} | {kernel} | {rate:.2f} | {1e6 * seconds:.0f} | {slowest / seconds:.3g}, {median / seconds:.3g} "
                f"| {1e3 * slowest:.3g}, {1e3 * median:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
