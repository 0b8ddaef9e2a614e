"""How many iterations a refit needs, and bootstrap standard errors beside those of Louis' formula.

    python benchmarks/accuracy/refits.py
    python benchmarks/accuracy/refits.py --bootstrap 200 --jobs 2

The first table has refits of theophylline to subjects drawn with replacement, from the estimate of
the data themselves: root mean squared distance of their estimates from those of 1600 iterations, in
standard errors of the fit.
"""

import argparse
import warnings
from time import perf_counter

import numpy as np
import pymc as pm

import pymc_saem as ps
from pymc_saem.refit.bootstrap import draw_cases
from pymc_saem.refit.fitted import Fitted, make_refitter

ITERATIONS = ((10, 50), (20, 60), (30, 100), (50, 150), (50, 250), (200, 350))
LONG = (100, 1500)


def theophylline():
    """One compartment, log-normal ka, V, CL with a diagonal covariance, constant error."""
    data = ps.datasets.load_theophylline()
    subject, ids = data["subject"].factorize()
    dose = data.groupby("subject", sort=False)["dose"].first().to_numpy()[subject]
    t, effect = data["time"].to_numpy(), {}
    with pm.Model(coords={"subject": ids}) as model:
        for name, start in (("ka", 0.0), ("V", 3.0), ("CL", 1.0)):
            omega = pm.HalfFlat(f"omega_{name}", initval=1.0)
            effect[name] = pm.LogNormal(
                name, pm.Flat(f"log_{name}", initval=start), omega, dims="subject"
            )[subject]
        ka, v, k = effect["ka"], effect["V"], effect["CL"] / effect["V"]
        conc = dose * ka / (v * (ka - k)) * (pm.math.exp(-k * t) - pm.math.exp(-ka * t))
        pm.Normal("conc", conc, pm.HalfFlat("sigma", initval=1.0), observed=data["conc"])
    return model


def noise(model, idata, n_draws: int, n_seeds: int) -> None:
    """Print the distance of refits from long ones."""
    fitted = Fitted(idata)
    refitter, se = make_refitter(model, fitted), fitted.column("se")
    weights = draw_cases(np.random.default_rng(0), n_draws, refitter.mixed.n_subjects)

    def estimates(iterations, w, seed):
        refitter.n_explore, refitter.n_smooth = iterations
        return refitter.fit(weights=w, start=fitted.estimates, seed=seed).values

    exact = [estimates(LONG, w, 1000) for w in weights]
    print("iterations      seconds  " + "  ".join(f"{label:>9}" for label in refitter.labels))
    for iterations in ITERATIONS:
        mark = perf_counter()
        gaps = np.array(
            [
                [estimates(iterations, w, s) - x for s in range(n_seeds)]
                for w, x in zip(weights, exact, strict=True)
            ]
        )
        seconds = (perf_counter() - mark) / (n_draws * n_seeds)
        size = np.sqrt(np.mean(gaps**2, axis=(0, 1))) / se
        print(
            f"{iterations[0]:4d} + {iterations[1]:4d}  {seconds:9.2f}  "
            + "  ".join(f"{x:9.3f}" for x in size),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4, help="draws of subjects")
    parser.add_argument("--seeds", type=int, default=4, help="refits of each")
    parser.add_argument("--bootstrap", type=int, default=0, help="replicates of each bootstrap")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    model = theophylline()
    idata = ps.fit_saem(model, random_seed=1, progressbar=False)
    if arguments.draws:
        noise(model, idata, arguments.draws, arguments.seeds)
    for kind in ("parametric", "case") if arguments.bootstrap else ():
        mark = perf_counter()
        found = ps.bootstrap(
            model, idata, arguments.bootstrap, kind=kind, n_jobs=arguments.jobs, random_seed=1
        )
        print(f"\n{found}\nLouis' formula: {np.round(Fitted(idata).column('se'), 4)}")
        print(
            f"{perf_counter() - mark:.0f} s, {found.seconds / len(found.replicates):.2f} s a refit",
            flush=True,
        )


if __name__ == "__main__":
    main()
