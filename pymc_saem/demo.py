"""``python -m pymc_saem.demo``: a neural ODE fitted to the theophylline data, with tables, figures and a file.

Twelve people swallowed theophylline, and its concentration in serum was measured eleven times. Drug
moves from a depot (the gut) to a central compartment (the blood) and leaves it; the four rates are
small neural networks, and each person has their own weights. :func:`theophylline_model` is the
model, :func:`main` the program around it.
"""

from __future__ import annotations

from time import perf_counter

_BEGAN = perf_counter()  # before the imports, which take some of the time that the demo reports

import argparse  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TypedDict  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pymc as pm  # noqa: E402
from pytensor.tensor.variable import TensorVariable  # noqa: E402

import pymc_saem as ps  # noqa: E402
from pymc_saem.compat import InferenceData  # noqa: E402
from pymc_saem.results.fit import Fit  # noqa: E402


class Settings(TypedDict, total=False):
    """Options of ``fit_saem`` that the demo sets."""

    n_explore: int
    n_smooth: int
    n_transitions: int
    n_starts: int
    draws: int


#: 1000 iterations of 80 transitions each, of which the first 600 explore. With 30 + 970, as the
#: model was first published, seed 2 ends at a marginal log-likelihood of -220;
#: benchmarks/accuracy/README.md has what a long exploration gives.
SETTINGS: Settings = {"n_explore": 600, "n_smooth": 400, "n_transitions": 80}
#: As few as show that everything works; the estimates mean nothing.
QUICK: Settings = {"n_explore": 5, "n_smooth": 5, "n_transitions": 20, "n_starts": 1, "draws": 4}
SEED = 21


def neural_rates(net: ps.nn.MLP) -> Callable[..., dict[str, TensorVariable]]:
    """Make the right-hand side of the model: two compartments, and a copy of the network for each of four rates."""

    def rates(t: TensorVariable, y: Any, p: Any) -> dict[str, TensorVariable]:
        f_a1 = ps.nn.softplus(net(p.w_a1, t / 24))
        f_a2 = ps.nn.softplus(net(p.w_a2, ps.nn.softplus(y.depot)))
        f_c1 = -ps.nn.softplus(net(p.w_c1, ps.nn.softplus(y.center)))
        f_c2 = ps.nn.softplus(net(p.w_c2, t / 24))
        return {
            "depot": -p.dose * f_a1 - f_a2,
            "center": p.dose * f_a1 + f_a2 + f_c1 + p.dose * f_c2,
        }

    return rates


def theophylline_model(data: pd.DataFrame | None = None, **options: Any) -> pm.Model:
    """The neural ODE model of the theophylline data: two compartments, four networks, Omega = I.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        As :func:`pymc_saem.datasets.load_theophylline` returns it, which is the default.
    **options
        For :func:`pymc_saem.ode.solve_ivp`, such as ``solver`` or ``n_threads``; the tolerances are
        1e-2 by default.

    Returns
    -------
    pymc.Model
    """
    data = ps.datasets.load_theophylline() if data is None else data
    subject, ids = data["subject"].factorize()
    dose = data.groupby("subject", sort=False)["dose"].first().to_numpy()
    net = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")

    with pm.Model(coords={"subject": ids, "weight": net.weight_names}) as model:
        sigma = pm.LogNormal("sigma", 0.0, 0.5)
        w = {}
        for name in ("a1", "a2", "c1", "c2"):
            z = ps.nn.weights(f"z_{name}", net)
            w[f"w_{name}"] = pm.MvNormal(
                f"w_{name}", z, np.eye(net.n_weights), dims=("subject", "weight")
            )
        solution = ps.ode.solve_ivp(
            neural_rates(net),
            y0={"depot": dose, "center": 0.0},
            params=w | {"dose": dose},
            t=data["time"],
            subject=subject,
            **{"rtol": 1e-2, "atol": 1e-2, **options},
        )
        pm.Normal("conc", solution.center, sigma, observed=data["conc"])
    return model


def describe_data(data: pd.DataFrame) -> pd.DataFrame:
    """One row per subject: number of rows, last time, range of the concentration, body weight, dose."""
    return data.groupby("subject", sort=False).agg(
        rows=("time", "size"),
        last_time=("time", "max"),
        lowest_conc=("conc", "min"),
        highest_conc=("conc", "max"),
        weight=("weight", "first"),
        dose=("dose", "first"),
    )


def split_seconds(idata: InferenceData, fit_wall: float) -> dict[str, float]:
    """Wall seconds of a fit by what they were spent on.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned.
    fit_wall : float
        Wall seconds of that call.

    Returns
    -------
    dict
        ``read`` the model, ``compile`` its densities, find the ``start`` (with the compilation that
        the first call triggers, and the first iteration), ``iterate``, and what comes ``after``.
    """
    known = Fit(idata).seconds
    split = {name: known[name] for name in ("compile", "start", "iterate", "after")}
    split["after"] += sum(
        known.get(name, 0.0) for name in ("residuals", "likelihood", "standard_errors")
    )
    read = known["total"] - sum(split.values())
    split["after"] += fit_wall - known["total"]
    return {"read": read, **split}


def main(arguments: list[str] | None = None) -> None:
    """Run the demo; ``arguments`` are those of the command line."""
    options = _options(arguments)
    seconds = {"import": _finish_imports()}
    options.out.mkdir(parents=True, exist_ok=True)

    mark = perf_counter()
    data = ps.datasets.load_theophylline()
    _title("Data: theophylline; times in h, concentrations in mg/L, weights in kg, doses in mg")
    print(describe_data(data).round(2).to_string())
    model = theophylline_model(data)
    _title("The model as SAEM understands it")
    print(ps.summarize(model))
    seconds["build"] = perf_counter() - mark

    settings = QUICK if options.quick else SETTINGS
    _title(
        "Fit: {n_explore} + {n_smooth} iterations of {n_transitions} transitions".format(**settings)
    )
    if options.quick:
        print("These are too few iterations for meaningful estimates.")
    mark = perf_counter()
    idata = ps.fit_saem(model, random_seed=options.seed, **settings)
    split = split_seconds(idata, perf_counter() - mark)
    seconds["build"] += split.pop("read")
    seconds |= split
    _title("Estimates")
    print(ps.summary(idata))

    mark = perf_counter()
    written = [*_figures(model, idata, options.out), _store(idata, options.out)]
    seconds["figures"] = perf_counter() - mark
    _title("Wall time")
    print(_time_table(seconds))
    _title("Files")
    for path, content in written:
        print(f"{path}  {content}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    description = (
        "Fit a neural ODE to the theophylline data; print tables, write figures and the fit."
    )
    parser = argparse.ArgumentParser(prog="python -m pymc_saem.demo", description=description)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for the files"
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"random seed (default: {SEED})")
    parser.add_argument(
        "--quick", action="store_true", help="a few iterations only, to see that everything works"
    )
    return parser.parse_args(arguments)


def _finish_imports() -> float:
    """Load what the package loads on first use; seconds since the first import."""
    import matplotlib

    matplotlib.use("Agg")  # the figures go to files, so no display is needed
    for name in ps.__all__:
        getattr(ps, name)
    return perf_counter() - _BEGAN


def _figures(model: pm.Model, idata: InferenceData, out: Path) -> Iterator[tuple[Path, str]]:
    """Draw and save every figure; yields the path of each, and what it shows."""
    import matplotlib.pyplot as plt

    distribution = ps.plot_observation_distribution
    drawn = (
        ("convergence.png", "every parameter by iteration", lambda: ps.plot_convergence(idata)),
        ("fits.png", "data and curves of all subjects", lambda: ps.plot_fits(model, idata)),
        (
            "fits_1_2.png",
            "data and curves of subjects 1 and 2",
            lambda: ps.plot_fits(model, idata, subjects=[1, 2]),
        ),
        ("rates.png", "what the four networks have learned", lambda: _rates(model, idata)),
        (
            "effects.png",
            "random effects: weights of the networks",
            lambda: ps.plot_random_effects(model, idata),
        ),
        (
            "observation.png",
            "subject 1, first row",
            lambda: distribution(model, idata, subject=1, row=0),
        ),
    )
    for name, content, draw in drawn:
        axes = np.ravel(np.asarray(draw(), dtype=object))
        axes[0].figure.savefig(out / name, dpi=120, bbox_inches="tight")
        plt.close(axes[0].figure)
        yield out / name, content


def _rates(model: pm.Model, idata: InferenceData) -> np.ndarray:
    labels = {
        "w_a1": "absorbed by time",
        "w_a2": "absorbed by amount",
        "w_c1": "eliminated",
        "w_c2": "appearing by time",
    }
    units = {"t": "h", "depot": "mg", "center": "mg/L"}
    return ps.plot_rates(model, idata, labels=labels | {"t": "time"}, units=units)


def _store(idata: InferenceData, out: Path) -> tuple[Path, str]:
    path = out / "fit.nc"
    ps.save(idata, path)
    return path, "the fit: az.from_netcdf reads it"


_MEANING = {
    "import": "Python modules",
    "build": "build the model, read it",
    "compile": "PyTensor graphs to functions",
    "start": "machine code on first use, search for a start, first iteration",
    "iterate": "all other iterations",
    "after": "conditional draws and modes, marginal likelihood, standard errors; ArviZ groups",
    "figures": "draw and write files",
}


def _time_table(seconds: dict[str, float]) -> str:
    lines = [f"{name:8} {value:7.2f} s  {_MEANING[name]}" for name, value in seconds.items()]
    return "\n".join([*lines, f"{'total':8} {sum(seconds.values()):7.2f} s"])


def _title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


if __name__ == "__main__":
    main()
