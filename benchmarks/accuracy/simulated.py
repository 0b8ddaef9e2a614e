"""The models of the simulation study: how they are written, the truth, and how data are drawn from it, in NumPy.

All designs are balanced: every subject has one row at each point of ``grid``. The data of a model
are in a ``pm.Data``, so that one compiled model serves all data sets. Starting values are such as a
user might give, not the truth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_saem as ps

DATA = "y_data"
DOSE = 320.0  # mg
NET = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")


@dataclass(frozen=True)
class Simulated:
    """A model with a known truth.

    Attributes
    ----------
    name : str
    build : callable
        ``build(n_subjects)``: the PyMC model, with its data in the ``pm.Data`` of name ``DATA``,
        shape (subject * row,).
    grid : ndarray, shape (row,)
        Times or concentrations, the same for every subject.
    truth : dict
        Natural values by parameter name.
    means, sds : tuple of str
        Parameters that are mean and standard deviation of each column of phi; of "neural", those of
        all columns.
    structural : tuple of str
        Positive parameters without random effect, which the predictions depend on.
    predict : callable
        ``predict(values, phi)``: (..., subject, phi) to (..., subject, row).
    is_proportional : bool
        Residuals are sigma times the prediction; otherwise sigma.
    seed : int
        Of the data, beside N and the number of the data set.
    """

    name: str
    build: Callable = field(repr=False)
    grid: np.ndarray = field(repr=False)
    truth: Mapping
    means: tuple
    sds: tuple
    predict: Callable = field(repr=False)
    structural: tuple = ()
    is_proportional: bool = False
    seed: int = 0

    @property
    def judged(self) -> list[str]:
        """Parameters whose estimates are compared; weights of a network have many equivalent values."""
        return [name for name in self.truth if np.ndim(self.truth[name]) == 0]

    def rows(self, n_subjects: int) -> tuple[np.ndarray, np.ndarray]:
        """Subject and point of the grid of each row of the model."""
        return np.repeat(np.arange(n_subjects), self.grid.size), np.tile(self.grid, n_subjects)

    def draw(self, n_subjects: int, number: int, seed: int) -> np.ndarray:
        """One data set, (subject, row)."""
        rng = np.random.default_rng([seed, self.seed, n_subjects, number])
        mean = np.hstack([self.truth[name] for name in self.means])
        sd = np.hstack([self.truth[name] for name in self.sds])
        phi = mean + sd * rng.standard_normal((n_subjects, mean.size))
        predicted = self.predict(self.truth, phi)
        scale = self.truth["sigma"] * (predicted if self.is_proportional else 1.0)
        return predicted + scale * rng.standard_normal(predicted.shape)


# -- one compartment, oral dose ---------------------------------------------------------------------

TIMES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 12.0, 24.0])  # h


def build_pk(n_subjects: int, is_proportional: bool) -> pm.Model:
    study = MODELS["pk_proportional" if is_proportional else "pk"]
    subject, t = study.rows(n_subjects)
    with pm.Model(coords={"subject": np.arange(n_subjects)}) as model:
        sigma = pm.HalfFlat("sigma", initval=0.5)
        effect = {}
        for name, start in (("ka", 0.0), ("V", 3.0), ("CL", 1.0)):
            mean = pm.Flat(f"log_{name}", initval=start)
            omega = pm.HalfFlat(f"omega_{name}", initval=1.0)
            effect[name] = pm.LogNormal(name, mean, omega, dims="subject")
        ka, V, CL = (effect[name][subject] for name in ("ka", "V", "CL"))
        k = CL / V
        conc = DOSE * ka / (V * (ka - k)) * (pt.exp(-k * t) - pt.exp(-ka * t))
        scale = sigma * conc if is_proportional else sigma
        pm.Normal("y", conc, scale, observed=pm.Data(DATA, study.draw(n_subjects, 0, 0).ravel()))
    return model


def predict_pk(values, phi):
    ka, V, CL = np.moveaxis(np.exp(phi), -1, 0)[..., None]
    k = CL / V
    gap = (
        ka - k
    ) * TIMES  # (e^-kt - e^-at) / (a - k), without the difference of two nearly equal numbers
    safe = np.where(np.abs(gap) < 1e-8, 1.0, gap)
    return (
        DOSE
        * ka
        / V
        * np.exp(-k * TIMES)
        * TIMES
        * np.where(np.abs(gap) < 1e-8, 1.0, -np.expm1(-safe) / safe)
    )


# -- Emax -------------------------------------------------------------------------------------------

CONCENTRATIONS = np.array([1.0, 3.0, 6.0, 10.0, 20.0, 40.0, 80.0, 200.0])  # mg/L


def build_emax(n_subjects: int) -> pm.Model:
    study = MODELS["emax"]
    subject, c = study.rows(n_subjects)
    with pm.Model(coords={"subject": np.arange(n_subjects)}) as model:
        sigma = pm.HalfFlat("sigma", initval=5.0)
        hill = pm.HalfFlat("hill", initval=1.0)
        E0 = pm.Normal(
            "E0",
            pm.Flat("mean_E0", initval=5.0),
            pm.HalfFlat("omega_E0", initval=5.0),
            dims="subject",
        )
        Emax = pm.Normal(
            "Emax",
            pm.Flat("mean_Emax", initval=30.0),
            pm.HalfFlat("omega_Emax", initval=10.0),
            dims="subject",
        )
        EC50 = pm.LogNormal(
            "EC50",
            pm.Flat("log_EC50", initval=2.0),
            pm.HalfFlat("omega_EC50", initval=1.0),
            dims="subject",
        )
        effect = E0[subject] + Emax[subject] * c**hill / (EC50[subject] ** hill + c**hill)
        pm.Normal("y", effect, sigma, observed=pm.Data(DATA, study.draw(n_subjects, 0, 0).ravel()))
    return model


def predict_emax(values, phi):
    E0, Emax, log_EC50 = np.moveaxis(phi, -1, 0)[..., None]
    with np.errstate(over="ignore"):
        return E0 + Emax / (1.0 + np.exp(values["hill"] * (log_EC50 - np.log(CONCENTRATIONS))))


# -- a rate that is a network -----------------------------------------------------------------------

NEURAL_TIMES = np.array([0.5, 1.0, 2.0, 4.0, 6.0, 9.0, 13.0, 18.0, 24.0])  # h
START = 10.0  # mg/L after the injection


def build_neural(n_subjects: int) -> pm.Model:
    """Elimination at a rate that is a network of the concentration, with random effects on all its weights."""
    study = MODELS["neural"]
    subject, t = study.rows(n_subjects)

    def rates(t, y, p):
        return {"center": -y.center * ps.nn.softplus(NET(p.w, y.center / START))}

    with pm.Model(coords={"subject": np.arange(n_subjects), "weight": NET.weight_names}) as model:
        sigma = pm.HalfFlat("sigma", initval=1.0)
        omega = pm.HalfFlat("omega", initval=0.5)
        z = ps.nn.weights("z", NET, typical_output=-2.0)
        w = pm.Normal("w", z, omega, dims=("subject", "weight"))
        solution = ps.ode.solve_ivp(
            rates, {"center": START}, {"w": w}, t=t, subject=subject, rtol=1e-4, atol=1e-4
        )
        pm.Normal(
            "y",
            solution.center,
            sigma,
            observed=pm.Data(DATA, study.draw(n_subjects, 0, 0).ravel()),
        )
    return model


def predict_neural(values, phi, n_steps: int = 480):
    """Runge-Kutta with fixed steps, for all subjects at once; every time of the grid is a multiple of the step."""
    step = NEURAL_TIMES[-1] / n_steps

    def slope(y):
        return -y * np.logaddexp(0.0, NET(phi, y / START))

    y, states = np.full(phi.shape[:-1], START), []
    for _ in range(n_steps):
        a = slope(y)
        b = slope(y + 0.5 * step * a)
        c = slope(y + 0.5 * step * b)
        y = y + step / 6.0 * (a + 2.0 * b + 2.0 * c + slope(y + step * c))
        states.append(y)
    return np.stack([states[round(t / step) - 1] for t in NEURAL_TIMES], axis=-1)


PK = {"log_ka": 0.4, "log_V": 3.4, "log_CL": 1.0, "omega_ka": 0.5, "omega_V": 0.2, "omega_CL": 0.3}
PK_NAMES = {"means": ("log_ka", "log_V", "log_CL"), "sds": ("omega_ka", "omega_V", "omega_CL")}
EMAX = {
    "mean_E0": 10.0, "mean_Emax": 50.0, "log_EC50": 2.5, "omega_E0": 3.0, "omega_Emax": 10.0, "omega_EC50": 0.4,
    "hill": 1.5, "sigma": 2.0,
}  # fmt: skip
#: The rate falls from 0.27 per hour at low to 0.07 at high concentrations, as where an enzyme is
#: saturated.
WEIGHTS = np.array([2.0, 1.0, -1.0, 0.5, -0.8, -0.6, -1.5])
MODELS = {
    model.name: model
    for model in (
        Simulated(
            "pk",
            lambda n: build_pk(n, False),
            TIMES,
            PK | {"sigma": 0.5},
            **PK_NAMES,
            predict=predict_pk,
            seed=1,
        ),
        Simulated(
            "pk_proportional",
            lambda n: build_pk(n, True),
            TIMES,
            PK | {"sigma": 0.15},
            **PK_NAMES,
            predict=predict_pk,
            is_proportional=True,
            seed=2,
        ),
        Simulated(
            "emax",
            build_emax,
            CONCENTRATIONS,
            EMAX,
            ("mean_E0", "mean_Emax", "log_EC50"),
            ("omega_E0", "omega_Emax", "omega_EC50"),
            predict_emax,
            structural=("hill",),
            seed=3,
        ),
        Simulated(
            "neural",
            build_neural,
            NEURAL_TIMES,
            {"z": WEIGHTS, "omega": 0.3, "sigma": 0.3},
            ("z",),
            ("omega",),
            predict_neural,
            seed=4,
        ),
    )
}
